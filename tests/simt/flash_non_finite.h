// What backward kernels must do with infinities and NaN, each put into one place of the inputs.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/simt/reference.h"

namespace nanoflex::simt {

/// backward(x, forward): dq, dk and dv of one head, from the results of a forward pass. Gradients
/// that do not depend on the place must keep their bits; those that do are NaN where it is.
template <typename Backward>
void expect_non_finite_stays_apart(const Problem& p, const Inputs& clean,
                                   const Backward& backward) {
  const int row = p.T * 2 / 7, key = p.S * 5 / 7;
  const Results forward = plain_attention(p, clean), before = backward(clean, forward);
  const auto expect_reached = [&](const char* name, double value, const Numbers& now,
                                  const Numbers& then, const auto& reaches) {
    for (size_t i = 0; i < then.size() / p.D; ++i) {
      const auto start = now.begin() + i * p.D;
      if (!reaches(static_cast<int>(i))) {
        ASSERT_TRUE(std::equal(start, start + p.D, then.begin() + i * p.D)) << name << " " << i;
      } else if (std::isnan(value)) {
        ASSERT_TRUE(std::any_of(start, start + p.D, [](double x) { return std::isnan(x); }))
            << name << " " << i;
      }
    }
  };
  const auto sees_key = [&](int i) { return p.sees(i, key); };
  const auto seen_by_row = [&](int j) { return p.sees(row, j); };
  const auto is_row = [&](int i) { return i == row; };
  const auto is_key = [&](int j) { return j == key; };
  const auto nothing = [](int) { return false; };
  for (const double value : {double{INFINITY}, -double{INFINITY}, double{NAN}}) {
    SCOPED_TRACE(value);
    const auto expect = [&](Numbers Inputs::*input, int place, const auto& dq, const auto& dk,
                            const auto& dv) {
      Inputs bad = clean;
      (bad.*input)[place * p.D + 5] = value;
      const Results got = backward(bad, forward);
      expect_reached("dq", value, got.dq, before.dq, dq);
      expect_reached("dk", value, got.dk, before.dk, dk);
      expect_reached("dv", value, got.dv, before.dv, dv);
    };
    {
      SCOPED_TRACE("in q");
      expect(&Inputs::q, row, is_row, seen_by_row, seen_by_row);
    }
    {
      SCOPED_TRACE("in k");
      expect(&Inputs::k, key, sees_key, is_key, is_key);
    }
    {
      SCOPED_TRACE("in v");
      expect(&Inputs::v, key, sees_key, is_key, nothing);
    }
    {
      SCOPED_TRACE("in dO");
      expect(&Inputs::d_o, row, is_row, seen_by_row, seen_by_row);
    }
  }
}

}  // namespace nanoflex::simt
