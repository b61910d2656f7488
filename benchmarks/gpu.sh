#!/usr/bin/env bash
# Everything that is to be known on a GPU, in one command of at most eight minutes; prints one JSON object.
#
#   benchmarks/gpu.sh                                        # random images, nothing is read or downloaded
#   benchmarks/gpu.sh --gland stores/cable_gland-256.zarr    # then 1,000 + 2,000 steps on a store of cable gland
#
# Needs Python 3.11 or newer with torch 2.11 and torchvision 0.26; see `benchmarks/gpu.py --help` for options. Other
# packages are taken from wheels in the folder WHEELS (default: wheels/ beside this checkout's README), if there is
# one: annotated-doc annotated-types google-crc32c h5py lightning-fabric lightning-utilities markdown-it-py mdurl
# ml-dtypes opencv-python-headless packaging pydantic pydantic-core pygments pyyaml rich safetensors scipy shellingham
# tensorstore typer typing-inspection; and filelock, jinja2, numpy, pillow and typing-extensions if torch was
# installed without them. On a machine with a network, for the Python that will run:
#
#   python -m pip download --only-binary :all: --no-deps -d wheels NAMES
set -euo pipefail
cd "$(dirname "$0")/.."
site=""
wheels="${WHEELS:-wheels}"
if compgen -G "$wheels/*.whl" > /dev/null; then
    site="$(mktemp -d)"
    trap 'rm -rf "$site"' EXIT
    python -m pip install --quiet --no-index --no-deps --target "$site" "$wheels"/*.whl
fi
export PYTHONPATH="$PWD${site:+:$site}" GOMP_SPINCOUNT=10000
python benchmarks/gpu.py "$@"
