#!/bin/sh
# In a system with systemd: the units of uffd-pager start, reload and stop, and are gone when the package is.
set -eux
folder=/var/lib/uffd-pager
cp /usr/share/doc/uffd-pager/examples/uffd-pager.json /etc/uffd-pager.json
mkdir -p "$folder"
head -c 1M /dev/zero >"$folder/web.mem"

systemctl start uffd-pager
uffd-pager ctl list --control /run/uffd-pager/control | grep -F '"web-1"'
main=$(systemctl show --property MainPID --value uffd-pager)
systemctl reload uffd-pager
# The successor makes its control socket anew.
timeout 20 sh -c 'until uffd-pager ctl list --control /run/uffd-pager/control; do sleep 0.1; done' | grep -F '"web-1"'
[ "$(systemctl show --property MainPID --value uffd-pager)" = "$main" ]

# What connects is no Firecracker, and starts the service all the same.
systemctl enable --now uffd-pager-firecracker@web.socket
[ "$(systemctl is-active uffd-pager-firecracker@web.service)" = inactive ]
uffd-pager ctl list --timeout 1 --control /run/uffd-pager-firecracker/web.socket || true
systemctl start uffd-pager-firecracker@web.service
systemctl is-active uffd-pager-firecracker@web.service

# An upgrade leaves machines alone, removal does not.
dpkg --remove --force-depends uffd-pager
[ -z "$(systemctl list-units --no-legend --state=active 'uffd-pager*')" ]
[ ! -e /run/uffd-pager ] && [ ! -e /run/uffd-pager-firecracker/web.socket ]
dpkg --purge uffd-pager
[ -z "$(find /etc/systemd -name 'uffd-pager*')" ]
