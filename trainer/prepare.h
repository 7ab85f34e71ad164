#pragma once

#include "data/dataset.h"
#include "model/gpt.h"
#include "trainer/progress.h"
#include "trainer/resolve.h"
#include "trainer/resume.h"

namespace nanoflex {

/// The tokens that a config names, read or made; tells `progress` what takes long.
data::Dataset open_data(const Config& config, Progress& progress);

/// The model that a config names, whose learned tensors `attention` reads from then on. A
/// checkpoint's weights take the place of `init_from`, which may be gone by then.
Gpt make_model(const Config& config, AttentionSetup& attention, const Choices& choices,
               const std::optional<ResumePoint>& from);

}  // namespace nanoflex
