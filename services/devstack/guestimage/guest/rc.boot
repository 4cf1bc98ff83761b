#!/bin/sh
# Brings the guest up to its network: own disk, context, host name, interfaces, SSH, power button.
# Must not run what the user gave: rc.start does, so that a shell is there even when that hangs.
export PATH=/sbin:/bin
. /etc/moln/lib.sh

for disk in /dev/vda2 /dev/sda2; do
    [ -b "$disk" ] && mount -t ext4 -o noatime "$disk" /data 2>/dev/null && break
done
ip link set lo up
hostname moln-guest
if read_context; then
    . /run/context/context.sh
    [ -n "$SET_HOSTNAME" ] && hostname "$SET_HOSTNAME"
    configure_nics
    authorize_keys
fi
echo "127.0.0.1 localhost $(hostname)" >/etc/hosts
acpid -c /etc/acpi -l /dev/null
start_services
load late
start_agent
