#include <torch/types.h>
#include <gtest/gtest.h>
TEST(A,B){ EXPECT_EQ(at::ones({3}).sum().item<float>(), 3.f);}
