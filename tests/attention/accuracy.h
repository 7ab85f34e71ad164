#pragma once

#include "tests/attention/reference.h"

namespace nanoflex {

/// Expects, for output, logsumexp (where there is one), dq, dk and dv: at most twice the plain
/// formula's error, plus a unit in the last place of the largest number that went in, came out or
/// is summed on the way. The result's type is the output's. `score`: the largest of scores that are
/// not the scaled ones; rounding it in fp32 changes each weight by that share.
void expect_all_close(const Tensors& result, const Tensors& plain, const Tensors& truth,
                      double score = 0);

}  // namespace nanoflex
