use core::time::Duration;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use crate::settings::{Settings, congestion};

/// Where Linux shows what is set for TCP, over IPv6 too.
pub(crate) const FOLDER: &str = "/proc/sys/net/ipv4";

impl Settings {
    /// The same with what scripts can set by `sysctl` as it is set now: `folder` has a file for each. What is not
    /// there, or has no meaning here, stays.
    pub(crate) fn with_sysctls(mut self, folder: &Path) -> Self {
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let words = |name: &str| -> Vec<u32> {
            read(name)
                .iter()
                .flat_map(|text| text.split_whitespace())
                .map_while(|word| word.parse().ok())
                .collect()
        };
        let config = &mut self.config;
        let switches = [
            ("tcp_timestamps", &mut config.timestamps),
            ("tcp_sack", &mut config.sack),
            ("tcp_window_scaling", &mut config.window_scaling),
        ];
        for (name, switch) in switches {
            *switch = number::<u32>(read(name)).map_or(*switch, |value| value != 0);
        }
        config.syn_retries = number(read("tcp_syn_retries")).unwrap_or(config.syn_retries);
        config.retries = number(read("tcp_retries2")).unwrap_or(config.retries);
        config.unsent_limit = number(read("tcp_notsent_lowat")).unwrap_or(config.unsent_limit);
        let fin_timeout = number(read("tcp_fin_timeout")).map(Duration::from_secs);
        config.fin_wait_2 = fin_timeout.unwrap_or(config.fin_wait_2);
        let algorithm = read("tcp_congestion_control").and_then(|name| congestion(name.trim()));
        config.congestion = algorithm.unwrap_or(config.congestion);
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

fn number<T: FromStr>(text: Option<String>) -> Option<T> {
    text?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
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
        let after = before.clone().with_sysctls(folder.path());
        assert!(!after.config.timestamps && after.config.sack);
        assert_eq!(after.config.congestion, Kind::NewReno);
        assert_eq!((after.config.receive_buffer, after.greatest_receive_buffer), (65_536, 6_291_456));
        assert_eq!(after.config.retries, before.config.retries);
    }
}
