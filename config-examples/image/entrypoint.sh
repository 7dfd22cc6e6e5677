#!/bin/sh
# The container `ci-coordinator` of a job, below tini: an SSH server that lets in the job's driver and nobody else.
#
# The driver gives the job's public key in SSH_PUBLIC_KEY. Arguments go to sshd.
set -eu

if [ -z "${SSH_PUBLIC_KEY-}" ]; then
	echo "entrypoint: SSH_PUBLIC_KEY is not set, so nobody could log in; the driver sets it" >&2
	exit 1
fi
umask 077
mkdir -p /root/.ssh
printf '%s\n' "$SSH_PUBLIC_KEY" >/root/.ssh/authorized_keys

# Made at the start: a key that comes with the image would be the same on every machine. More kinds than
# ed25519 cost time and serve nobody.
key=/etc/ssh/ssh_host_ed25519_key
[ -f "$key" ] || ssh-keygen -q -t ed25519 -N '' -f "$key"
# Scripts have the usual umask, not the one above.
umask 022
# sshd wants it on Debian, where nothing but its init script makes it.
mkdir -p /run/sshd

# No settings but these, whatever the distribution's file says. The first login must not wait for a name server.
/usr/sbin/sshd -D -e -f /dev/null \
	-o HostKey="$key" \
	-o AuthenticationMethods=publickey \
	-o PermitRootLogin=prohibit-password \
	-o UseDNS=no \
	"$@" &
sshd=$!

# Says whether somebody is connected: each connection is a child of the server.
connected() {
	for stat in /proc/[0-9]*/stat; do
		# Its name may hold blanks, which sshd's does not.
		if read -r _ _ _ parent _ 2>/dev/null <"$stat" && [ "$parent" = "$sshd" ]; then
			return
		fi
	done
	return 1
}

# SIGTERM means that the job is over, or that Fargate takes its Spot capacity back in two minutes. A server that
# ended now would take a running script along. So: with nobody connected end at once, else when they have gone; ECS
# kills what is left after the task definition's `stopTimeout`.
notice=
trap 'notice=1' TERM INT
code=0
wait "$sshd" || code=$?
[ -n "$notice" ] || exit "$code"
echo "entrypoint: told to stop" >&2
while connected; do
	sleep 1
done
kill "$sshd"
