set -eu
report() {
  if [ -n "$REPORT_URL" ]; then
    curl --fail --silent --show-error --max-time 30 --retry 10 --retry-delay 3 --retry-all-errors \
      --header 'Content-Type: application/json' --data-raw "$1" "$REPORT_URL"
  fi
}
abort() {
  echo "aborted: $1" >&2
  report "$REPORT_ABORTED" || echo "this was not reported" >&2
  exit 1
}
smoke() {
  if [ -n "$SMOKE_BODY" ]; then
    set -- --header 'Content-Type: application/json' --data-raw "$SMOKE_BODY"
  else
    set --
  fi
  curl --fail --silent --show-error --max-time 30 --retry 20 --retry-delay 3 --retry-all-errors \
    --output /dev/null "$@" "$SMOKE_URL"
}
# Each metric must give 1, and nothing else: no data is no success.
look() {
  good=yes
  while [ "$#" -ge 2 ]; do
    answer=`curl --silent --show-error --max-time 30 --get --data-urlencode "query=$2" "$PROMETHEUS/api/v1/query" || true`
    case $answer in
      *',"0"]'*) echo "$1: out of bounds" >&2; good=no ;;
      *',"1"]'*) ;;
      *) echo "$1: no answer: $answer" >&2; good=no ;;
    esac
    shift 2
  done
}
smoke || abort "smoke test"
round=0
failed=0
while [ "$round" -lt "$ROUNDS" ]; do
  sleep "$INTERVAL"
  round=`expr "$round" + 1`
  look "$@"
  if [ "$good" = no ]; then
    failed=`expr "$failed" + 1`
    [ "$failed" -le "$FAILURES" ] || abort "metrics"
  fi
done
report "$REPORT_OK"
echo ok
