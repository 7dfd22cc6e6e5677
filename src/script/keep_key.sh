# shellcheck shell=sh
# Has the login's account keep the job's key, as ssh-copy-id would. It is the first login's command where AWS vouches for
# the key for a minute only. POSIX sh, read on standard input, with the key's line in $key. Sent again, it finds the key
# there and changes nothing.
umask 077
cd -- "$HOME" || exit
[ -d .ssh ] || mkdir .ssh || exit
chmod 700 .ssh || exit
file=.ssh/authorized_keys
# shellcheck disable=SC2154
if ! grep -qxF -e "$key" "$file" 2>/dev/null; then
	# The last line of the file may have no end.
	if [ -s "$file" ] && [ -n "$(tail -c 1 "$file")" ]; then
		echo >>"$file" || exit
	fi
	printf '%s\n' "$key" >>"$file" || exit
fi
chmod 600 "$file" || exit
# With SELinux, sshd may not read a file with another label than this one should have.
! command -v restorecon >/dev/null 2>&1 || restorecon -R .ssh || :
