set -eu
: "${WITHDRAW:=}" "${WITHDRAW_GUARD:=}"
again=
report() {
  if [ -n "$REPORT_URL" ]; then
    curl --fail --silent --show-error --max-time 30 --retry 10 --retry-delay 3 --retry-all-errors \
      --header 'Content-Type: application/json' --data-raw "$1" "$REPORT_URL"
  fi
}
# Asks Kubernetes; the answer ends in its HTTP status. The token is read anew, since it is changed now and then.
kubernetes() {
  token=`cat "$ACCOUNT/token"` || true
  answer=`printf 'header = "Authorization: Bearer %s"\n' "$token" |
    curl --silent --show-error --max-time 30 --config - --cacert "$ACCOUNT/ca.crt" --write-out '\n%{http_code}' "$@"` || true
}
# Flux puts back what is changed in the cluster alone. Argo CD does not after a sync that failed, as it does with this job, and begins
# no other one before the job ends.
notice_flux() {
  case $answer in
    *'"kustomize.toolkit.fluxcd.io/name"'*) again=yes ;;
  esac
}
# Takes the traffic away. There is no more to do when what had it is gone, or names another version.
withdraw() {
  over=
  if [ -n "$WITHDRAW_GUARD" ]; then
    kubernetes "$KUBERNETES$WITHDRAW_GUARD"
    notice_flux
    case $answer in
      *200) ;;
      *404) over=yes; return ;;
      *403) echo "it is not allowed to look at the canary: $answer" >&2; over=yes; return ;;
      *) echo "cannot look at the canary: $answer" >&2; return ;;
    esac
    case $answer in
      *"\"git-model/version\": \"$VERSION\""* | *"\"git-model/version\":\"$VERSION\""*) ;;
      *) over=yes; return ;;
    esac
  fi
  kubernetes --request PATCH --header "Content-Type: $WITHDRAW_MEDIA" --data-raw "$WITHDRAW_PATCH" "$KUBERNETES$WITHDRAW"
  notice_flux
  case $answer in
    *200) echo "its traffic was taken away" >&2; [ -n "$again" ] || over=yes ;;
    *404 | *422) over=yes ;;
    *403) echo "it is not allowed to take the traffic away: $answer" >&2; over=yes ;;
    *) echo "cannot take the traffic away: $answer" >&2 ;;
  esac
}
abort() {
  echo "aborted: $1" >&2
  [ -z "$WITHDRAW" ] || withdraw
  report "$REPORT_ABORTED" || echo "this was not reported" >&2
  while [ -n "$WITHDRAW" ] && [ -z "$over" ]; do
    sleep "$INTERVAL"
    withdraw
  done
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
