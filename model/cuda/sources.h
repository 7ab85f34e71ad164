#pragma once

#include "attention/cuda/sources.h"

namespace nanoflex::cuda {

/// model/cuda/*.cuh and the headers they share with the host, embedded at build time.
const std::vector<Source>& embedded_model_sources();

}  // namespace nanoflex::cuda
