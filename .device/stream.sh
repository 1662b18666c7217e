. .dev/setup.sh; R=$PWD; for i in $(seq 60); do grep -q "made 30b" /tmp/models.log && break; sleep 1; done; sync; date +%T; nvidia-smi -L; cd .dev/tree-cuda; export PYTHONPATH=/tmp/site:$PWD/src:$PWD
python3 -m lacewing backends 2>&1 | cut -c1-160
(timeout 40 python3 -m lacewing bench /tmp/m/8b.gguf --backend cuda --adapter 1 --json > /tmp/a1.txt 2>&1 & sleep 9; nvidia-smi --query-gpu=index,memory.used --format=csv,noheader; wait; tail -c 400 /tmp/a1.txt | cut -c1-400)
b() { echo "== $*"; timeout 60 python3 -m lacewing bench /tmp/m/30b.gguf "$@" --threads 15 --json 2>&1 | tail -c 1100; date +%T; }
b --backend cuda --gpu-memory 8GiB --residency streamed --memory 6GiB
b --backend cuda --gpu-memory 8GiB --residency lazy
