# shellcheck shell=sh
# The first login's command where AWS vouches for the job's key for a minute only. POSIX sh, over standard input, with the
# key's line in $key: the account keeps it, as ssh-copy-id would have it do. Sent again it finds the key there.
umask 077
cd -- "$HOME" || exit
[ -d .ssh ] || mkdir .ssh || exit
chmod 700 .ssh || exit
file=.ssh/authorized_keys
# shellcheck disable=SC2154
if ! grep -qxF -e "$key" "$file" 2>/dev/null; then
	# Somebody's last line may not end.
	if [ -s "$file" ] && [ -n "$(tail -c 1 "$file")" ]; then
		echo >>"$file" || exit
	fi
	printf '%s\n' "$key" >>"$file" || exit
fi
chmod 600 "$file" || exit
# With SELinux, sshd may not read what has another label than such a file has.
! command -v restorecon >/dev/null 2>&1 || restorecon -R .ssh || :
