//! What scripts set by `sysctl`.

use core::time::Duration;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use crate::settings::{Settings, Sysctls, base_mtu, congestion, ecn, mtu_probing, syn_cookies};

/// Where Linux shows what is set for TCP, over IPv6 too.
pub(crate) const FOLDER: &str = "/proc/sys/net/ipv4";

/// What has a meaning here.
const NAMES: [&str; 16] = [
    "tcp_timestamps",
    "tcp_sack",
    "tcp_window_scaling",
    "tcp_slow_start_after_idle",
    "tcp_syn_retries",
    "tcp_retries2",
    "tcp_notsent_lowat",
    "tcp_fin_timeout",
    "tcp_congestion_control",
    "tcp_ecn",
    "tcp_syncookies",
    "tcp_min_tso_segs",
    "tcp_mtu_probing",
    "tcp_base_mss",
    "tcp_rmem",
    "tcp_wmem",
];

/// Values by their names. What the host does not have is not in it.
pub(crate) type Values = BTreeMap<&'static str, String>;

/// What is set now: `folder` has a file for each.
pub(crate) fn read(folder: &Path) -> Values {
    let read = |name: &'static str| fs::read_to_string(folder.join(name)).ok().map(|value| (name, value));
    NAMES.into_iter().filter_map(read).collect()
}

impl Sysctls {
    /// Of what is set now, what a new socket takes over; `before` is what was set when the object was loaded.
    pub(crate) fn choose(self, before: &Values, now: Values) -> Values {
        match self {
            Self::None => Values::new(),
            Self::Changed => {
                now.into_iter().filter(|(name, value)| before.get(name) != Some(value)).collect()
            }
            Self::All => now,
        }
    }
}

impl Settings {
    /// The same with these values. What makes no sense stays as it is.
    pub(crate) fn with_sysctls(mut self, values: &Values) -> Self {
        let get = |name: &str| values.get(name).map(String::as_str);
        let words = |name: &str| -> Vec<u32> {
            get(name)
                .into_iter()
                .flat_map(str::split_whitespace)
                .map_while(|word| word.parse().ok())
                .collect()
        };
        let config = &mut self.config;
        let switches = [
            ("tcp_timestamps", &mut config.timestamps),
            ("tcp_sack", &mut config.sack),
            ("tcp_window_scaling", &mut config.window_scaling),
            ("tcp_slow_start_after_idle", &mut config.slow_start_after_idle),
        ];
        for (name, switch) in switches {
            *switch = number::<u32>(get(name)).map_or(*switch, |value| value != 0);
        }
        config.syn_retries = number(get("tcp_syn_retries")).unwrap_or(config.syn_retries);
        config.retries = number(get("tcp_retries2")).unwrap_or(config.retries);
        config.unsent_limit = number(get("tcp_notsent_lowat")).unwrap_or(config.unsent_limit);
        let fin_timeout = number(get("tcp_fin_timeout")).map(Duration::from_secs);
        config.fin_wait_2 = fin_timeout.unwrap_or(config.fin_wait_2);
        let algorithm = get("tcp_congestion_control").and_then(|name| congestion(name.trim()));
        config.congestion = algorithm.unwrap_or(config.congestion);
        config.ecn = number(get("tcp_ecn")).and_then(ecn).unwrap_or(config.ecn);
        config.syn_cookies =
            number(get("tcp_syncookies")).and_then(syn_cookies).unwrap_or(config.syn_cookies);
        self.least_burst = number(get("tcp_min_tso_segs")).unwrap_or(self.least_burst);
        config.mtu_probing =
            number(get("tcp_mtu_probing")).and_then(mtu_probing).unwrap_or(config.mtu_probing);
        config.base_mtu = number(get("tcp_base_mss")).map_or(config.base_mtu, base_mtu);
        if let [_, default, greatest] = words("tcp_rmem")[..] {
            // Linux keeps half for its overhead.
            (config.receive_buffer, self.greatest_receive_buffer) = (default / 2, greatest);
        }
        if let [_, default, _] = words("tcp_wmem")[..] {
            config.send_buffer = default;
        }
        self
    }
}

fn number<T: FromStr>(text: Option<&str>) -> Option<T> {
    text?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use ferry_stack::tcp::EcnPolicy;
    use ferry_stack::tcp::cc::Kind;

    use super::*;

    #[test]
    fn what_is_set_is_taken_over_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let set = |name: &str, value: &str| fs::write(folder.path().join(name), value).unwrap();
        set("tcp_timestamps", "0\n");
        set("tcp_congestion_control", "reno\n");
        set("tcp_rmem", "4096\t131072\t6291456\n");
        set("tcp_retries2", "nonsense");
        let before = Settings::default();
        let after = before.clone().with_sysctls(&read(folder.path()));
        assert!(!after.config.timestamps && after.config.sack);
        assert_eq!(after.config.congestion, Kind::NewReno);
        assert_eq!((after.config.receive_buffer, after.greatest_receive_buffer), (65_536, 6_291_456));
        assert_eq!(after.config.retries, before.config.retries);
    }

    #[test]
    fn what_the_script_did_not_change_is_not_taken_over() {
        let before = Values::from([("tcp_timestamps", "0\n".to_owned()), ("tcp_ecn", "2\n".to_owned())]);
        let now = Values::from([("tcp_timestamps", "0\n".to_owned()), ("tcp_ecn", "1\n".to_owned())]);
        let chosen =
            |sysctls: Sysctls| Settings::default().with_sysctls(&sysctls.choose(&before, now.clone()));
        assert_eq!(chosen(Sysctls::None), Settings::default());
        assert!(chosen(Sysctls::Changed).config.timestamps && !chosen(Sysctls::All).config.timestamps);
        assert_eq!(chosen(Sysctls::Changed).config.ecn, EcnPolicy::On);
    }
}
