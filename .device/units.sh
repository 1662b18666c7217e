# On the device, in the repository's root; .dev/tree-units holds a copy of branch units (src, benchmarks), .dev this file and units.py:
#   mkdir -p .dev/tree-units; git -C /work/wt/units archive units src benchmarks pyproject.toml | tar x -C .dev/tree-units
#   cp /work/dev/units.sh /work/dev/units.py .dev/;  then  bash .dev/units.sh values 8b2 | bash .dev/units.sh times 8b
# A setting is SKINNY_ABOVE,SPLIT_GROUPS[0],SPLIT_GROUPS[1]; 64,0,0 is today's.
set -u
. .dev/setup.sh
what=${1:-values} model=${2:-8b2}
D=$PWD/.dev
export LACEWING_WEBGPU=dawn TS=16,33,64,100,128,200 REF=units
python3 $D/models.py $model
tree units
case $what in
values)
  LACEWING_WEBGPU= timeout 240 python3 $D/check.py reference $model
  for s in 64,0,0 64,264,0 8,0,0 8,264,264; do timeout 100 python3 $D/units.py $s $D/check.py webgpu $model; done ;;
times)
  for s in 64,0,0 64,132,0 64,264,0 64,528,0; do timeout 100 python3 $D/units.py $s prompts /tmp/m/$model.gguf; done
  for s in 64,0,0 8,0,0 8,264,264 8,264,528 8,264,1056; do timeout 100 python3 $D/units.py $s batches /tmp/m/$model.gguf; done ;;
esac
