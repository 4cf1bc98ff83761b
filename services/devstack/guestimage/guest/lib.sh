# Functions of the demo guest: reading the CONTEXT disk and acting on it as one-context does. POSIX sh, BusyBox only.

# load base: loads a group of modules. modules.list has "<group> <file>" a line, dependencies first.
load() {
    while read -r group file; do
        [ "$group" = "$1" ] && insmod "/lib/modules/$file" 2>/dev/null
    done </etc/moln/modules.list
}

# Prints the ISO 9660 volume label of a block device (primary volume descriptor: sector 16, 32 bytes from 40).
volume_label() {
    dd if="$1" bs=2048 skip=16 count=1 2>/dev/null | head -c 72 | tail -c 32 | tr -d ' \000'
}

# Copies the CONTEXT disk to /run/context and leaves it mounted on /mnt/context; false when there is none.
read_context() {
    for disk in /dev/sr* /dev/vd[a-z] /dev/sd[a-z]; do
        [ -b "$disk" ] || continue
        [ "$(volume_label "$disk")" = CONTEXT ] || continue
        mount -t iso9660 -o ro "$disk" /mnt/context || continue
        cp -r /mnt/context /run/context
        [ -f /run/context/context.sh ] && return 0
    done
    return 1
}

# Names of the interfaces of the context: ETH0 ETH1 ...
context_nics() {
    sed -n 's/^\(ETH[0-9][0-9]*\)_MAC=.*/\1/p' /run/context/context.sh
}

# value ETH0 IP: the value of ETH0_IP.
value() {
    eval "printf '%s' \"\${$1_$2}\""
}

# Prints the interface with this MAC address.
nic_with_mac() {
    for nic in /sys/class/net/*; do
        [ "$(cat "$nic/address")" = "$(printf '%s' "$1" | tr A-F a-f)" ] && basename "$nic" && return 0
    done
    return 1
}

configure_nics() {
    for name in $(context_nics); do
        nic=$(nic_with_mac "$(value "$name" MAC)") || continue
        mtu=$(value "$name" MTU)
        ip link set "$nic" mtu "${mtu:-1500}" up
        case "$(value "$name" METHOD)" in
            skip) ;;
            dhcp) udhcpc -i "$nic" -n -q -S -s /etc/moln/dhcp >/dev/null 2>&1 ;;
            *) configure_static "$name" "$nic" ;;
        esac
    done
    for server in $DNS; do echo "nameserver $server"; done >>/etc/resolv.conf
}

# configure_static ETH0 eth0
configure_static() {
    address=$(value "$1" IP)
    mask=$(value "$1" MASK)
    gateway=$(value "$1" GATEWAY)
    metric=$(value "$1" METRIC)
    [ -n "$address" ] && ifconfig "$2" "$address" netmask "${mask:-255.255.255.0}"
    [ -n "$gateway" ] && ip route add default via "$gateway" dev "$2" ${metric:+metric "$metric"}
    value "$1" ROUTES | tr ',' '\n' | while read -r route; do ip route add $route; done
    for server in $(value "$1" DNS); do echo "nameserver $server"; done >>/etc/resolv.conf
    search=$(value "$1" SEARCH_DOMAIN)
    [ -n "$search" ] && echo "search $search" >>/etc/resolv.conf
    address=$(value "$1" IP6)
    prefix=$(value "$1" IP6_PREFIX_LENGTH)
    [ -n "$address" ] && ip -6 addr add "$address/${prefix:-64}" dev "$2"
    gateway=$(value "$1" IP6_GATEWAY)
    [ -n "$gateway" ] && ip -6 route add default via "$gateway" dev "$2"
    return 0
}

authorize_keys() {
    mkdir -p -m 700 /root/.ssh
    printf '%s\n%s\n' "$SSH_PUBLIC_KEY" "$EC2_PUBLIC_KEY" | grep . >>/root/.ssh/authorized_keys
    chmod 600 /root/.ssh/authorized_keys
}

# The agent that the host asks for addresses and to run commands, where the image has it and the host a channel for it.
start_agent() {
    [ -x /data/programs/qemu-ga ] || return 0
    for port in /sys/class/virtio-ports/*; do
        [ "$(cat "$port/name" 2>/dev/null)" = org.qemu.guest_agent.0 ] || continue
        /data/programs/qemu-ga -d -m virtio-serial -p "/dev/$(basename "$port")" -t /run -f /run/qemu-ga.pid -l /dev/null
        return
    done
}

# A web page that names the guest (port 80), and SSH where the image has it. Host keys live on the guest's own disk.
start_services() {
    mkdir -p /run/www
    hostname >/run/www/index.html
    httpd -h /run/www
    [ -x /data/programs/dropbear ] && start_ssh &
}

start_ssh() {
    key=/data/programs/host_ed25519
    [ -s "$key" ] || /data/programs/dropbearkey -t ed25519 -f "$key" >/dev/null 2>&1
    /data/programs/dropbear -s -r "$key" -P /run/dropbear.pid
}

# START_SCRIPT_BASE64 wins over START_SCRIPT; INIT_SCRIPTS defaults to init.sh when the disk has one.
run_user_scripts() {
    cd /mnt/context || return 0
    if [ -n "$START_SCRIPT_BASE64" ]; then
        printf '%s' "$START_SCRIPT_BASE64" | base64 -d >/run/start-script
    elif [ -n "$START_SCRIPT" ]; then
        printf '%s\n' "$START_SCRIPT" >/run/start-script
    fi
    [ -f /run/start-script ] && chmod +x /run/start-script && run_script /run/start-script
    [ -z "$INIT_SCRIPTS" ] && [ -f init.sh ] && INIT_SCRIPTS=init.sh
    for script in $INIT_SCRIPTS; do sh "./$script"; done
    cd / && umount /mnt/context
}

# Runs a script by its first line, or by sh where its interpreter is not in this guest.
run_script() {
    interpreter=$(sed -n '1s/^#! *\([^ ]*\).*/\1/p' "$1")
    if [ -n "$interpreter" ] && [ -x "$interpreter" ]; then "$1"; else sh "$1"; fi
}

# " eth0=10.0.0.5/24 eth1=..." for the console line.
describe_nics() {
    for nic in /sys/class/net/eth*; do
        [ -e "$nic" ] || continue
        nic=$(basename "$nic")
        printf ' %s=%s' "$nic" "$(ip -4 -o addr show dev "$nic" | awk '{print $4; exit}')"
    done
}
