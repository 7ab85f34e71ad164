# Writes a C++ file that holds a folder's CUDA sources as string literals, for NVRTC:
#   cmake -DROOT=<source folder> -DFOLDER=attention/cuda "-DSHARED=<headers>" -DFUNCTION=embedded_sources
#         -DOUTPUT=<file.cpp> -P attention/cuda/embed.cmake
# The file defines the function that FOLDER/sources.h declares: *.cuh of the folder, and the headers
# that they share with the host.
file(GLOB sources RELATIVE ${ROOT} ${ROOT}/${FOLDER}/*.cuh)
list(APPEND sources ${SHARED})
list(SORT sources)
set(text "#include \"${FOLDER}/sources.h\"\n\nnamespace nanoflex::cuda {\n\n")
string(APPEND text "const std::vector<Source>& ${FUNCTION}() {\n")
string(APPEND text "  static const std::vector<Source> sources = {\n")
foreach(source ${sources})
  file(READ ${ROOT}/${source} content)
  string(APPEND text "{\"${source}\", R\"__cuda(${content})__cuda\"},\n")
endforeach()
string(APPEND text "  };\n  return sources;\n}\n\n}  // namespace nanoflex::cuda\n")
file(WRITE ${OUTPUT} "${text}")
