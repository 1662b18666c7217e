# llama.cpp's llama-batched-bench for CUDA on the device, from slim sources of PyPI's llama-cpp-python 0.3.36 (vendor/llama.cpp: cmake common
# include src vendor licenses, tools/{batched-bench,llama-bench}, ggml with ggml-cuda and ggml-cpu, an empty app/CMakeLists.txt); 6 minutes beside tests
mkdir -p /tmp/lcpp && cd /tmp/lcpp && tar xJf $1/.dev/llama-src.tar.xz
cmake -B b -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=90 -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_CURL=OFF -DLLAMA_BUILD_TOOLS=ON > conf.log 2>&1
nice -n 15 ninja -C b -j 16 llama-batched-bench > build.log 2>&1
strip b/bin/llama-batched-bench && date +%T > built
