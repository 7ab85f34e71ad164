// Weights on disk: what is written comes back, and nothing in a file is trusted.
#include "model/weights.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "model/safetensors.h"

namespace nanoflex {
namespace {

namespace fs = std::filesystem;

fs::path temporary(const std::string& name) {
  return fs::path(testing::TempDir()) /
         ("nanoflex_weights_" + std::to_string(getpid()) + "_" + name);
}

fs::path file_of(const std::string& header, const std::string& data = "") {
  const fs::path file = temporary("crafted.safetensors");
  const uint64_t bytes = header.size();
  std::ofstream out(file, std::ios::binary);
  out.write(reinterpret_cast<const char*>(&bytes), sizeof bytes);
  out << header << data;
  return file;
}

std::string rejection(const fs::path& file) {
  try {
    read_safetensors(file);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "accepted";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

constexpr GptOptions kTinyWeights{
    .n_layer = 1, .n_head = 2, .n_kv_head = 1, .n_embd = 8, .sequence_len = 4, .vocab_size = 11};

TEST(Safetensors, EveryTypeComesBackAsItWas) {
  at::manual_seed(1);
  const at::Tensor x = at::randn({3, 5}) * 10;
  std::map<std::string, at::Tensor> tensors = {{"scalar", at::tensor(4.5)},
                                               {"empty", at::empty({0, 7})}};
  for (const at::ScalarType type : {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf, at::kLong,
                                    at::kInt, at::kByte, at::kBool}) {
    tensors[at::toString(type)] = x.abs().to(type);
  }
  tensors["strided"] = x.t();
  const fs::path file = temporary("types.safetensors");
  write_safetensors(file, tensors);
  const auto read = read_safetensors(file);
  ASSERT_EQ(read.size(), tensors.size());
  for (const auto& [name, tensor] : tensors) {
    EXPECT_TRUE(at::equal(read.at(name), tensor)) << name;
    EXPECT_EQ(read.at(name).scalar_type(), tensor.scalar_type()) << name;
  }
}

TEST(Safetensors, HostileFilesAreRefusedByName) {
  const auto header = [](const std::string& entry) { return "{\"w\": " + entry + "}"; };
  EXPECT_TRUE(contains(rejection("/nonexistent/x"), "cannot read /nonexistent/x"));
  EXPECT_TRUE(contains(rejection(file_of("not json")), "its header is not a JSON object"));
  EXPECT_TRUE(contains(
      rejection(file_of(header(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})"), "1234")),
      "(w): its data_offsets do not fit"));
  EXPECT_TRUE(contains(
      rejection(file_of(header(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})"), "12345678")),
      "(w): its data_offsets do not fit"));
  EXPECT_TRUE(contains(
      rejection(file_of(
          header(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]})"))),
      "(w): impossible shape"));
  EXPECT_TRUE(
      contains(rejection(file_of(header(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,0]})"))),
               "(w): impossible shape"));
  EXPECT_TRUE(
      contains(rejection(file_of(header(R"({"dtype":"F99","shape":[],"data_offsets":[0,0]})"))),
               "(w): unknown dtype 'F99'"));
  EXPECT_TRUE(contains(rejection(file_of(header(R"({"dtype":7})"))), "(w): malformed entry"));
  for (const char* shape : {"[1.5]", "[\"1\"]", "[0,4611686018427387904]",
                            "[0,281474976710656,281474976710656]", "[18446744073709551615]"}) {
    const std::string entry =
        R"({"dtype":"F32","data_offsets":[0,0],"shape":)" + std::string(shape) + "}";
    const std::string message = rejection(file_of(header(entry)));
    EXPECT_TRUE(contains(message, "(w): impossible shape, ")) << message;
  }
  EXPECT_TRUE(contains(
      rejection(file_of(header(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4.5]})"), "12345")),
      "(w): impossible data_offsets, it has 4.5"));
}

// Many tensors of the same bytes would ask for far more memory than the file has.
TEST(Safetensors, TensorsThatShareBytesAreRefusedByBothNames) {
  const auto entry = [](const char* name, const char* offsets) {
    return std::string("\"") + name + R"(":{"dtype":"U8","shape":[4],"data_offsets":)" + offsets +
           "}";
  };
  const std::string none = R"("none":{"dtype":"U8","shape":[0],"data_offsets":[2,2]})";
  const auto message = [&](const std::string& a, const std::string& b) {
    return rejection(file_of("{" + a + "," + b + "," + none + "}", "12345678"));
  };
  EXPECT_EQ(message(entry("b", "[0,4]"), entry("a", "[4,8]")), "accepted");
  EXPECT_TRUE(contains(message(entry("a", "[3,7]"), entry("b", "[0,4]")),
                       "(a): its data overlaps that of 'b'"));
  EXPECT_TRUE(contains(message(entry("a", "[4,8]"), entry("b", "[4,8]")), "data overlaps that of"));
}

TEST(Safetensors, WhatCannotBeWrittenIsSaidInTheSystemsWords) {
  try {
    write_safetensors("/nonexistent/x", {});
    FAIL() << "nothing was refused";
  } catch (const std::invalid_argument& error) {
    EXPECT_STREQ(error.what(),
                 "[safetensors] cannot write /nonexistent/x: No such file or directory");
  }
}

TEST(Safetensors, ATruncatedHeaderIsRefused) {
  const fs::path file = temporary("short.safetensors");
  const uint64_t bytes = 1'000'000;
  std::ofstream(file, std::ios::binary).write(reinterpret_cast<const char*>(&bytes), sizeof bytes);
  EXPECT_TRUE(contains(rejection(file), "its header does not fit in its 8 bytes"));
  std::ofstream(file, std::ios::binary) << "abc";
  EXPECT_TRUE(contains(rejection(file), "it is shorter than 8 bytes"));
}

TEST(Weights, ASavedModelComesBackToTheBit) {
  const Gpt model(kTinyWeights, 1, at::kCPU, at::kFloat);
  Gpt other(kTinyWeights, 2, at::kCPU, at::kFloat);
  save_weights(model, temporary("model.safetensors"));
  load_weights(other, temporary("model.safetensors"));
  for (size_t i = 0; i < model.parameters().size(); ++i) {
    EXPECT_TRUE(at::equal(model.parameters()[i].value, other.parameters()[i].value));
  }
}

// As Python's library writes: keys in any order, places in another, and metadata of its own.
TEST(Weights, AFileFromElsewhereLoadsWhateverItsOrderAndListsAllThatIsWrong) {
  Gpt model(kTinyWeights, 1, at::kCPU, at::kFloat);
  std::string header = R"({"__metadata__":{"format":"pt","note":"x"})", data;
  float value = 0;
  for (size_t i = model.parameters().size(); i-- > 0;) {
    const Parameter& p = model.parameters()[i];
    std::string bytes;
    for (int64_t k = 0; k < p.value.numel(); ++k) {
      value += 0.5F;
      bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
    std::ostringstream shape;
    shape << p.value.sizes();
    header += ",\"" + p.name + R"(":{"shape":)" + shape.str() + R"(,"data_offsets":[)" +
              std::to_string(data.size()) + "," + std::to_string(data.size() + bytes.size()) +
              R"(],"dtype":"F32"})";
    data += bytes;
  }
  load_weights(model, file_of(header + "}   ", data));
  EXPECT_EQ(model.parameters().back().value.detach().flatten()[0].item<float>(), 0.5F);
  EXPECT_EQ(model.parameters().front().value.detach().flatten()[-1].item<float>(), value);

  std::map<std::string, at::Tensor> tensors;
  for (const Parameter& p : model.parameters()) tensors[p.name] = p.value.detach();
  tensors["lm_head.weight"] = tensors["lm_head.weight"].to(at::kLong);
  tensors["transformer.wte.weight"] = at::zeros({3, 8});
  tensors.erase("transformer.h.0.mlp.c_fc.weight");
  const fs::path wrong = temporary("elsewhere.safetensors");
  write_safetensors(wrong, tensors);
  try {
    load_weights(model, wrong);
    FAIL() << "a file that does not fit was loaded";
  } catch (const std::invalid_argument& error) {
    for (const char* part : {"lm_head.weight must be floating point, is Long",
                             "transformer.wte.weight must be [11, 8], is [3, 8]",
                             "transformer.h.0.mlp.c_fc.weight is missing"}) {
      EXPECT_TRUE(contains(error.what(), part)) << error.what();
    }
  }
}

TEST(Weights, EveryMismatchIsListedAtOnceAndNothingChanges) {
  Gpt model(kTinyWeights, 1, at::kCPU, at::kFloat);
  const at::Tensor before = model.parameters()[0].value.detach().clone();
  std::map<std::string, at::Tensor> tensors;
  for (const Parameter& p : model.parameters()) tensors[p.name] = p.value.detach() + 1;
  tensors.erase("lm_head.weight");
  tensors["transformer.h.0.attn.c_q.weight"] = at::zeros({2, 2});
  tensors["transformer.h.7.attn.c_q.weight"] = at::zeros({8, 8});
  write_safetensors(temporary("wrong.safetensors"), tensors);
  try {
    load_weights(model, temporary("wrong.safetensors"));
    FAIL() << "a file that does not fit was loaded";
  } catch (const std::invalid_argument& error) {
    EXPECT_TRUE(contains(error.what(), "lm_head.weight is missing")) << error.what();
    EXPECT_TRUE(contains(error.what(), "transformer.h.0.attn.c_q.weight must be [8, 8], is [2, 2]"))
        << error.what();
    EXPECT_TRUE(contains(error.what(), "transformer.h.7.attn.c_q.weight is unknown"))
        << error.what();
  }
  EXPECT_TRUE(at::equal(model.parameters()[0].value, before));
}

}  // namespace
}  // namespace nanoflex
