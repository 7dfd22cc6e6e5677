# shellcheck shell=sh
# Tells once that Spot takes this instance back. POSIX sh; run as
#
#   sh -c TEXT gad HALF HALF
#
# The two halves make the nonce of the frame "RS nonce notice ANSWER", whose ANSWER is what the instance's metadata say
# under spot/instance-action, on one line. Asked every four seconds, until standard input ends: the connection.
n=$1$2 b=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}
b=${b%/}/latest h=X-aws-ec2-metadata-token
has() { command -v "$1" >/dev/null 2>&1; }

if has curl; then
	put() { curl -sf -m 2 --noproxy '*' -X PUT -H "$h-ttl-seconds: 600" "$b/api/token"; }
	get() { curl -sf -m 2 --noproxy '*' -H "$h: $t" "$b/meta-data/spot/instance-action"; }
elif wget --help 2>&1 | grep -q -e --method; then
	w='wget -q -O - -T 2 -t 1 --no-proxy'
	put() { $w --method=PUT --header="$h-ttl-seconds: 600" "$b/api/token"; }
	get() { $w --header="$h: $t" "$b/meta-data/spot/instance-action"; }
else
	# Busybox's wget cannot PUT: the request is written here, and whatever opens a connection takes it there.
	a=${b#*://} p=80
	a=${a%%/*}
	case $a in *:*) p=${a##*:} a=${a%:*} ;; esac
	if has bash; then
		# shellcheck disable=SC2016
		talk() {
			bash -c 'exec 3<>"/dev/tcp/$0/$1" || exit
				cat >&3
				while IFS= read -r -t 2 l <&3 || [ -n "$l" ]; do printf "%s\n" "$l"; done' "$a" "$p"
		}
	elif has nc; then
		# Some end at once with what they have to send.
		talk() { { cat; sleep 1; } | nc -w 2 "$a" "$p"; }
	else
		echo "no curl, no wget that can PUT, no bash and no nc" >&2
		exit 1
	fi
	# Nothing but the body of an answer that is good.
	body() {
		read -r _ c _ && [ "$c" = 200 ] || return
		while read -r l && [ ${#l} -gt 1 ]; do :; done
		cat
	}
	ask() {
		printf '%s /latest/%s HTTP/1.1\r\nHost: %s\r\n%s\r\nConnection: close\r\n\r\n' "$1" "$2" "$a" "$3" | talk | body
	}
	put() { ask PUT api/token "$h-ttl-seconds: 600"; }
	get() { ask GET meta-data/spot/instance-action "$h: $t"; }
fi

watch() {
	t='' i=0
	while :; do
		# Of half the token's life; and at once where there was none to be had.
		if [ -z "$t" ] || [ $i -ge 60 ]; then
			t=$(put) i=0
		fi
		i=$((i + 1))
		r=
		[ -z "$t" ] || r=$(get)
		if [ -n "$r" ]; then
			set -f
			# shellcheck disable=SC2086
			set -- $r
			printf '\036%s notice %s\n' "$n" "$*"
			return
		fi
		sleep 4 >/dev/null
	done 2>/dev/null
}

watch </dev/null &
cat >/dev/null
kill $! 2>/dev/null
