# Writes a C++ file that holds the CUDA sources as string literals, for NVRTC:
#   cmake -DROOT=<source folder> -DOUTPUT=<file.cpp> -P attention/cuda/embed.cmake
# The file defines nanoflex::cuda::embedded_sources() of attention/cuda/sources.h.
file(GLOB sources RELATIVE ${ROOT} ${ROOT}/attention/cuda/*.cuh)
list(APPEND sources attention/cuda/params.h attention/cuda/shapes.h attention/philox.h)
list(SORT sources)
set(text "#include \"attention/cuda/sources.h\"\n\nnamespace nanoflex::cuda {\n\n")
string(APPEND text "const std::vector<Source>& embedded_sources() {\n")
string(APPEND text "  static const std::vector<Source> sources = {\n")
foreach(source ${sources})
  file(READ ${ROOT}/${source} content)
  string(APPEND text "{\"${source}\", R\"__cuda(${content})__cuda\"},\n")
endforeach()
string(APPEND text "  };\n  return sources;\n}\n\n}  // namespace nanoflex::cuda\n")
file(WRITE ${OUTPUT} "${text}")
