#!/usr/bin/env bash
# Builds the environment of the old PolicyServerInput (Ray 2.9.3) under build/peers, once. Where that is impossible it says why, here and
# in build/peers/policy_server_input.missing, from which `make bench` takes it; that is no failure: the benchmark goes on without it.
#   PYTHON            the interpreter, 3.11
#   TORCH_CPU_INDEX   where PyTorch's CPU build comes from
set -uo pipefail
cd "$(dirname "$0")/../../.."
pins=benchmarks/speed/peers/policy_server_input.txt
folder=build/peers/policy_server_input
reason=$folder.missing

cannot() {
  rm -rf "$folder"
  echo "$1" >"$reason"
  echo "The old PolicyServerInput cannot be measured here: $1" >&2
  exit 0
}

if [ -x "$folder/bin/python" ] && cmp -s "$pins" "$folder/pins"; then
  echo "$folder is up to date"
  exit 0
fi
mkdir -p build/peers
rm -rf "$folder" "$reason"
version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || cannot "there is no interpreter \"$PYTHON\""
[ "$version" = 3.11 ] || cannot "its pinned packages are for Python 3.11, \"$PYTHON\" is $version; name one: make bench-peers PYTHON=python3.11"
"$PYTHON" -m venv "$folder" || cannot "\"$PYTHON -m venv\" failed"
install() { "$folder/bin/python" -m pip --disable-pip-version-check install --quiet "$@" 2>&1 | tee "$folder/pip.log"; }
install --index-url "$TORCH_CPU_INDEX" "$(grep '^torch==' "$pins")" || cannot "PyTorch did not install: $(tail -n 1 "$folder/pip.log")"
install --no-deps --requirement "$pins" || cannot "a package did not install: $(tail -n 1 "$folder/pip.log")"
"$folder/bin/python" -c 'import ray.rllib.env.policy_server_input' >/dev/null 2>"$folder/pip.log" ||
  cannot "Ray 2.9.3 does not import: $(tail -n 1 "$folder/pip.log")"
cp "$pins" "$folder/pins"
echo "$folder is built; \`make bench\` measures it"
