#!/bin/sh
# Runs a docker engine in a folder until standard input ends, and then takes away all that there is of it.
#
#   sh -c "$(cat guard.sh)" guard run FOLDER DOCKERD    until nobody holds the other end of standard input
#   sh -c "$(cat guard.sh)" guard clear FOLDER          what an engine left whose guard was killed
#
# The folder's name is also that of the cgroup that all containers are below. A guard's own command line must not hold the name of
# a file in the folder: it ends all that do.
set -u
verb=$1
folder=$2

# Ends the processes that have these words in that file of theirs, and waits until they are gone.
end_all() {
	while alive "$1" "$2" | {
		none=1
		while read -r process; do
			kill -KILL "$process" 2>/dev/null && none=
		done
		[ -z "$none" ]
	}; do sleep 0.05; done
}

# Prints them. A process that has ended but was not waited for has no command line.
alive() {
	grep -slF -e "$1" /proc/[0-9]*/"$2" | while IFS=/ read -r _ _ process _; do
		[ "$process" = $$ ] || ! grep -qs . "/proc/$process/cmdline" || echo "$process"
	done
}

clear() {
	# First those that could start more, then containers, then what watched them.
	end_all "$folder/" cmdline
	end_all "${folder##*/}" cgroup
	end_all "$folder/" cmdline
	# Backwards, so that what lies on another mount goes first.
	while read -r _ place _; do
		case $place in "$folder"/*) echo "$place" ;; esac
	done </proc/self/mounts | sort -r | while read -r place; do umount -l "$place"; done
	find /sys/fs/cgroup -depth -type d -path "*/${folder##*/}*" -exec rmdir {} + 2>/dev/null
	rm -rf "$folder"
}

case $verb in
run)
	# They are meant for the tests; this one has to see their end.
	trap '' HUP INT TERM
	# Locked for as long as somebody sees to the engine, and locked before it has its name.
	exec 9>"$folder/owner.new"
	flock 9
	mv "$folder/owner.new" "$folder/owner"
	# Neither this host's own engine nor its rules and bridges have a part in it. Without the group, dockerd would look for one
	# named docker. At its end it would wait for containers longer than anybody here.
	"$3" --config-file "$folder/daemon.json" --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/pid" \
		--host "unix://$folder/socket" --group root --bridge none --iptables=false --ip6tables=false \
		--cgroup-parent "/${folder##*/}" --shutdown-timeout 1 >"$folder/log" 2>&1 </dev/null 9>&- &
	cat >/dev/null
	clear
	;;
clear)
	clear
	;;
esac
