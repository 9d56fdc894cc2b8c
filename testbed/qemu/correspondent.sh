#!/usr/bin/env bash
# correspondent.sh [FERRY [FOLDER]]: a stock Debian kernel in qemu with `ferry correspondent --mode xfrm` downloads a file while
# its connection is handed 20 times between three nodes, and the daemon ends and begins anew. Fails if a byte, a checksum, a
# message or a binding is wrong, or if anything is left behind. Needs root and Debian packages (installed if missing); works in FOLDER, which keeps the evidence.
# Where it cannot be carried out it is skipped and says why; with FERRY_REQUIRE_NETNS=1 that is a failure.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
ferry=$(readlink -f "${1:-$here/../../target/release/ferry}")
work=${2:-$(mktemp -d)}
handoffs=20
claimed=2001:db8:5::99
ns=ferry-qemu-$$
mkdir -p "$work"
work=$(cd "$work" && pwd)
cd "$work"
processes=()

clean_up() {
    for pid in "${processes[@]}"; do
        kill -9 "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    ip netns del "$ns" 2>/dev/null || true
}
trap clean_up EXIT

fail() {
    echo "FAILED: $*; evidence: $work" >&2
    exit 1
}

skip() {
    echo "SKIPPED ${0##*/}: $*" >&2
    if [ "${FERRY_REQUIRE_NETNS:-0}" = 1 ]; then
        echo "FAILED: FERRY_REQUIRE_NETNS=1 forbids to do without" >&2
        exit 1
    fi
    exit 0
}

# What no package brings.
check_machine() {
    [ "$(uname -m)" = x86_64 ] || skip "the kernel and the node are for x86_64, and this is $(uname -m)"
    [ "$(id -u)" = 0 ] || skip "only root can make the network and install packages"
    [ -c /dev/net/tun ] || skip "there is no /dev/net/tun"
    command -v apt-get >/dev/null || skip "there is no apt-get, which brings Debian's kernel"
    unshare --net true 2>/dev/null || skip "no network namespace can be made"
    [ -x "$ferry" ] || fail "there is no $ferry; cargo build --release -p ferry-node"
    cp "$ferry" ferry
}

install_missing() {
    local -A package_of=([qemu-system-x86_64]=qemu-system-x86 [busybox]=busybox-static [ip]=iproute2 [curl]=curl
        [tcpdump]=tcpdump [ethtool]=ethtool [cpio]=cpio [depmod]=kmod [python3]=python3 [tshark]=tshark)
    local missing=()
    for command in "${!package_of[@]}"; do
        command -v "$command" >/dev/null || missing+=("${package_of[$command]}")
    done
    if ((${#missing[@]})); then
        apt-get update -qq || skip "no package lists can be had"
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
            skip "cannot install ${missing[*]}"
    fi
}

kernel_package() {
    apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image/ { print $2; exit }'
}

# The kernel as Debian ships it, and a small file system around `init`.
make_image() {
    local image version root=$work/root program library module
    image=$(kernel_package)
    if [ -z "$image" ]; then
        apt-get update -qq || skip "no package lists can be had"
        image=$(kernel_package)
    fi
    ls "$image"_*.deb >/dev/null 2>&1 || apt-get download -qq -o APT::Sandbox::User=root "$image" || skip "cannot download $image"
    version=${image#linux-image-}
    rm -rf kernel root
    dpkg-deb -x "$image"_*.deb kernel
    grep -q CONFIG_IPV6_MIP6=y "kernel/boot/config-$version" || fail "$image has no Mobile IPv6"
    mkdir -p "$root"/{proc,sys,dev,run,tmp,bin,usr/bin,lib64,lib}
    cp "$(command -v busybox)" "$root/bin/busybox"
    ln -s busybox "$root/bin/sh"
    for program in ip curl ethtool "$work/ferry"; do
        program=$(readlink -f "$(command -v "$program")")
        cp "$program" "$root/usr/bin/"
        ldd "$program" | grep -oE '/[^ ]+\.so[^ ]*' | while read -r library; do
            mkdir -p "$root$(dirname "$library")"
            cp -Ln "$library" "$root$library"
        done
    done
    depmod -b kernel "$version"
    for module in virtio_pci virtio_net xfrm_user; do
        modprobe -d kernel -S "$version" --show-depends "$module" | awk '$1 == "insmod" { print $2 }'
    done | awk '!seen[$0]++' | while read -r module; do
        cp "$module" "$root/lib/"
        echo "/lib/$(basename "$module")" >>"$root/modules"
    done
    install -m 755 "$here/init" "$root/init"
    (cd "$root" && find . | cpio --quiet -o -H newc -R 0:0 | gzip -1) >initrd.gz
    cp "kernel/boot/vmlinuz-$version" vmlinuz
}

inside() { ip netns exec "$ns" "$@"; }

# For what is ended by its id: no shell stays between.
become() { exec ip netns exec "$ns" "$@"; }

make_network() {
    ip netns add "$ns"
    inside sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0
    ip -n "$ns" link set lo up
    ip -n "$ns" tuntap add dev client mode tap
    ip -n "$ns" link set client up
    ip -n "$ns" addr add 2001:db8:1::1/64 dev client nodad
}

node_file() { # name of the node, its number
    cat <<END
name = "$1"
control = "$work/$1.sock"
[group]
name = "qemu"
service-address = "2001:db8:5::1"
contact = "a"
secret-file = "keys/group.secret"
[tap]
device = "tap-$1"
address = "2001:db8:a$2::2/64"
gateway = "2001:db8:a$2::1"
[peer-link]
listen = "[::1]:740$2"
ca = "keys/ca.pem"
certificate = "keys/$1.pem"
key = "keys/$1.key"
[[service]]
kind = "file"
port = 80
root = "www"
END
    local number=0 other
    for other in a b c; do
        if [ "$other" != "$1" ]; then
            printf '[[peer]]\nname = "%s"\ncare-of = "2001:db8:a%s::2"\nlink = "[::1]:740%s"\n' "$other" $number $number
        fi
        number=$((number + 1))
    done
}

start_nodes() {
    local number=0 node
    rm -rf keys www
    ./ferry keygen --group qemu --node a --node b --node c --out keys >/dev/null
    mkdir www
    head -c 96000000 /dev/urandom >www/file.bin
    for node in a b c; do
        ip -n "$ns" tuntap add dev "tap-$node" mode tap vnet_hdr
        ip -n "$ns" link set "tap-$node" up
        ip -n "$ns" addr add "2001:db8:a$number::1/64" dev "tap-$node" nodad
        node_file "$node" $number >"$node.toml"
        become ./ferry node --config "$node.toml" >"$node.log" 2>&1 &
        processes+=($!)
        number=$((number + 1))
    done
    ip -n "$ns" route add 2001:db8:5::1/128 dev tap-a
}

boot() {
    : >console.log
    become tcpdump -i client -s 0 -w capture.pcap ip6 2>/dev/null &
    processes+=($!)
    tcpdump=$!
    local offloads=csum=off,gso=off,guest_csum=off,guest_tso4=off,guest_tso6=off,host_tso4=off,host_tso6=off,mrg_rxbuf=off
    become qemu-system-x86_64 -M q35 -accel tcg -cpu qemu64 -m 320 -nodefaults -no-user-config -display none \
        -no-reboot -kernel vmlinuz -initrd initrd.gz -append "console=ttyS0 quiet panic=-1 random.trust_cpu=on" \
        -serial file:console.log -netdev tap,id=net,ifname=client,script=no,downscript=no \
        -device virtio-net-pci,netdev=net,"$offloads" &
    qemu=$!
    processes+=($qemu)
}

told() { tr -d '\r' <console.log 2>/dev/null | sed -n "s/^GUEST $1 *//p"; }

await() { # what the guest says, at most so many seconds
    local left=$(($2 * 5))
    until [ -n "$(told "$1")" ]; do
        kill -0 $qemu 2>/dev/null || fail "the guest ended before it said $1"
        ((left--)) || fail "the guest did not say $1 within $2 s"
        sleep 0.2
    done
}

hand_off() {
    local from=a to moved=0
    for _ in $(seq $handoffs); do
        to=$(echo $from | tr abc bca)
        ./ferry handoff --control "$work/$from.sock" --to "$to" --all | grep -q '1 moved' && moved=$((moved + 1))
        from=$to
        sleep 0.7
    done
    [ $moved = $handoffs ] || fail "$moved of $handoffs handoffs"
}

# A packet with a home address that nobody is bound to. Its checksum holds for that address (RFC 6275 section 11.3.1), which a
# kernel that writes it does not know of.
claim() {
    inside python3 -c '
import socket, struct, sys
home, client = (socket.inet_pton(socket.AF_INET6, text) for text in sys.argv[1:])
payload = b"a claim!"
length = 8 + len(payload)
datagram = lambda checksum: struct.pack("!4H", 9, 9, length, checksum) + payload
pseudo = home + client + struct.pack("!2I", length, socket.IPPROTO_UDP)
total = sum(word for word, in struct.iter_unpack("!H", pseudo + datagram(0)))
while total >> 16:
    total = (total & 0xFFFF) + (total >> 16)
option = bytes([0, 2, 1, 2, 0, 0, 0xC9, 16]) + home
with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_UDP) as sender:
    sender.setsockopt(socket.IPPROTO_IPV6, 59, option)  # IPV6_DSTOPTS
    sender.sendto(datagram(~total & 0xFFFF or 0xFFFF), (sys.argv[2], 0))' "$claimed" 2001:db8:1::c
}

# What others make of the messages: every kind is there, and there is nothing to say against any, nor anything grave
# against whatever else passed.
decode() {
    local kinds kind
    tshark -n -o tcp.desegment_tcp_streams:FALSE -d tcp.port==80,data -r capture.pcap -T fields -E separator='|' -e frame.number -e mip6.mhtype -e _ws.malformed \
        -e _ws.expert.severity -e mip6.be.haddr -e _ws.expert.message >decoded 2>tshark.log || fail "tshark: $(cat tshark.log)"
    # 0x00800000 is an error; behind a Mobility Header anything is too much.
    awk -F'|' '$3 != "" || ($2 != "" && $4 != "") || $4 ~ /8388608/' decoded >complaints
    [ ! -s complaints ] || fail "tshark complains: $(head -5 complaints)"
    kinds=$(awk -F'|' '$2 != "" { seen[$2]++ } END { for (kind in seen) printf " %s:%d", kind, seen[kind] }' decoded)
    for kind in 1 2 3 4 5 6 7; do
        [[ $kinds == *" $kind:"* ]] || fail "no Mobility Header of type $kind among$kinds"
    done
    # Binding Errors come as well when the daemon begins anew; this one answers the claim.
    awk -F'|' -v home="$claimed" '$2 == 7 && $5 == home { found = 1 } END { exit !found }' decoded ||
        fail "no Binding Error answers the claim of $claimed"
    echo "tshark: $(wc -l <decoded) frames, Mobility Headers by type$kinds, no complaint"
}

judge() {
    [ "$(told CURL)" = 0 ] || fail "curl: $(told CURL)"
    [ "$(told SUM)" = "$(sha256sum <www/file.bin | cut -d' ' -f1)" ] || fail "the download differs from the file"
    # Two of the binding, and that which makes the kernel report what has none.
    [ "$(told STATES)" = 3 ] || fail "the kernel has $(told STATES) states with one binding"
    [ "$(told ENDED)" = "0 0 0" ] || fail "status, states and policies left behind the first time: $(told ENDED)"
    [ "$(told LEFT)" = "0 0 0" ] || fail "status, states and policies left behind: $(told LEFT)"
    local node straight=0 resets=0 status
    for node in a b c; do
        status=$(./ferry status --control "$work/$node.sock" --json)
        straight=$((straight + $(python3 -c 'import json,sys; print(json.load(sys.stdin)["counters"]["optimised"])' <<<"$status")))
        resets=$((resets + $(python3 -c 'import json,sys; print(json.load(sys.stdin)["counters"]["resets_sent"])' <<<"$status")))
    done
    ((straight > 1000)) || fail "only $straight segments went straight"
    ((resets == 0)) || fail "$resets RST"
    python3 "$here/checksums.py" capture.pcap || fail "checksums"
    decode
    echo "ok: kernel $(told BEGINS), $handoffs handoffs, $straight segments straight, $(told STATUS | cut -c1-200)"
}

check_machine
install_missing
make_image
make_network
start_nodes
boot
await BEGINS 180
# Now, since later the daemon may be about to begin anew.
claim
sleep 2
hand_off
await LEFT 250
kill -INT $tcpdump
wait $tcpdump 2>/dev/null || true
judge
