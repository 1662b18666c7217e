# sourced on the device, in the repository's root
if [ ! -e /tmp/site/ok ]; then
 for f in .dev/gl/*.deb; do dpkg -x $f /; done; ldconfig
 python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target /tmp/site .dev/whl/*.whl 2>&1 | tail -2
 S=$(python3 -c 'import site;print(site.getsitepackages()[0])'); cp -rn /tmp/site/* $S/ 2>/dev/null; touch /tmp/site/ok
fi
export VK_DRIVER_FILES=/usr/local/nvidia/share/vulkan/icd.d/nvidia_icd.json LACEWING_CACHE=/tmp/lwcache PYTHONPYCACHEPREFIX=/tmp/pyc PYTHONUNBUFFERED=1
export PYTHONPATH=/tmp/site:$PWD/src:$PWD
tree() { export PYTHONPATH=/tmp/site:$PWD/.dev/tree-$1/src:$PWD/.dev/tree-$1; cd .dev/tree-$1; }
