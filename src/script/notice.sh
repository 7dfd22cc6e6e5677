# shellcheck shell=sh
# Tells once that Spot takes this instance back. POSIX sh; run as
#
#   sh -c TEXT gad HALF HALF
#
# The two halves make the nonce of the frame "RS nonce notice ANSWER", whose ANSWER is what the instance's metadata say
# under spot/instance-action, on one line. Asked every four seconds, until standard input ends: the connection.
n=$1$2 b=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}
b=${b%/}/latest h=X-aws-ec2-metadata-token

if command -v curl >/dev/null 2>&1; then
	put() { curl -sf -m 2 --noproxy '*' -X PUT -H "$h-ttl-seconds: 600" "$b/api/token"; }
	get() { curl -sf -m 2 --noproxy '*' -H "$h: $t" "$b/meta-data/spot/instance-action"; }
elif wget --help 2>&1 | grep -q -e --method; then
	w='wget -q -O - -T 2 -t 1 --no-proxy'
	put() { $w --method=PUT --header="$h-ttl-seconds: 600" "$b/api/token"; }
	get() { $w --header="$h: $t" "$b/meta-data/spot/instance-action"; }
else
	echo "neither curl nor a wget that can PUT" >&2
	exit 1
fi

watch() {
	t='' i=0
	while :; do
		# Of half the token's life; and at once where there was none to be had.
		if [ -z "$t" ] || [ $i -ge 60 ]; then
			t=$(put) i=0
		fi
		i=$((i + 1))
		a=
		[ -z "$t" ] || a=$(get)
		if [ -n "$a" ]; then
			set -f
			# shellcheck disable=SC2086
			set -- $a
			printf '\036%s notice %s\n' "$n" "$*"
			return
		fi
		sleep 4 >/dev/null
	done 2>/dev/null
}

watch </dev/null &
cat >/dev/null
kill $! 2>/dev/null
