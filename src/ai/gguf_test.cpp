#include "ai/gguf.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <boost/json/parse.hpp>
#include <cstring>

namespace grange::ai {
namespace {

// Writes the format, so that the tests say what they read.
struct File {
  std::string bytes = "GGUF";
  template <class T>
  File& put(T value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  File& text(std::string_view value) {
    put<std::uint64_t>(value.size());
    bytes += value;
    return *this;
  }
  File& head(std::uint64_t tensors, std::uint64_t keys, std::uint32_t version = 3) {
    return put(version).put(tensors).put(keys);
  }
  File& u32(std::string_view key, std::uint32_t value) { return text(key).put<std::uint32_t>(4).put(value); }
  File& string(std::string_view key, std::string_view value) { return text(key).put<std::uint32_t>(8).text(value); }
  File& array(std::string_view key, std::uint32_t type, std::uint64_t count) {
    return text(key).put<std::uint32_t>(9).put(type).put(count);
  }
  File& tensor(std::string_view name, std::vector<std::uint64_t> sides, std::uint32_t type) {
    text(name).put(static_cast<std::uint32_t>(sides.size()));
    for (const std::uint64_t side : sides) put(side);
    return put(type).put<std::uint64_t>(0);
  }
};

File model(std::uint32_t version = 3) {
  File f;
  f.head(3, 13, version);
  f.string("general.architecture", "llama").string("general.name", "Tiny");
  f.u32("general.file_type", 15).u32("llama.block_count", 4).u32("llama.context_length", 2048);
  f.u32("llama.embedding_length", 256).u32("llama.feed_forward_length", 1024).u32("llama.attention.head_count", 8);
  f.array("llama.attention.head_count_kv", 5, 4);
  for (const std::int32_t heads : {2, 4, 0, 2}) f.put(heads);
  f.array("tokenizer.ggml.tokens", 8, 3).text("a").text("b").text("<s>");
  f.array("tokenizer.ggml.scores", 6, 5000);
  f.bytes.append(20'000, '\0');
  f.text("odd").put<std::uint32_t>(9).put<std::uint32_t>(9).put<std::uint64_t>(1);  // an array of arrays
  f.put<std::uint32_t>(7).put<std::uint64_t>(2).put<std::uint8_t>(1).put<std::uint8_t>(0);
  f.text("wide").put<std::uint32_t>(12).put(2.5);
  f.tensor("token_embd.weight", {256, 3}, 0).tensor("blk.0.attn_q.weight", {256, 256}, 12);
  f.tensor("blk.0.norm", {256}, 1);
  return f;
}

TEST(Gguf, ReadsKeysArraysAndTensors) {
  for (const std::uint32_t version : {2u, 3u}) {
    const GgufRead got = read_gguf(model(version).bytes);
    ASSERT_EQ(got.state, GgufRead::State::whole) << got.error;
    EXPECT_EQ(got.head.version, version);
    EXPECT_EQ(got.head.array_lengths.at("tokenizer.ggml.scores"), 5000u);
    EXPECT_FALSE(got.head.keys.contains("tokenizer.ggml.scores")) << "too long to keep";
    EXPECT_EQ(std::get<double>(got.head.keys.at("wide")), 2.5);
    EXPECT_EQ(got.head.parameters, 256u * 3 + 256 * 256 + 256);
    EXPECT_EQ(got.head.tensor_bytes, 256u * 3 * 4 + 256 * 144 + 256 * 2);
    EXPECT_TRUE(got.head.tied_output);
    EXPECT_EQ(got.head.head_bytes % 32, 0u);
    const ModelFacts facts = facts_of(got.head);
    EXPECT_EQ(facts.name, "Tiny");
    EXPECT_EQ(facts.quantization, "Q4_K_M");
    EXPECT_EQ(facts.block_count, 4u);
    EXPECT_EQ(facts.head_count_kv, 4u);
    EXPECT_EQ(facts.layer_head_count_kv, (std::vector<std::uint32_t>{2, 4, 0, 2}));
    EXPECT_EQ(facts.vocabulary, 3u);
    EXPECT_EQ(facts.weights, got.head.tensor_bytes);
  }
}

// A reader that fetches what is asked for comes to the end, and never asks for what it has.
TEST(Gguf, SaysHowMuchMoreItNeeds) {
  const std::string bytes = model().bytes;
  std::size_t have = 1;
  bool keys_only = false;
  for (int turn = 0;; ++turn) {
    ASSERT_LT(turn, 1000);
    const GgufRead got = read_gguf(std::string_view(bytes).substr(0, have));
    if (got.state == GgufRead::State::whole) break;
    ASSERT_NE(got.state, GgufRead::State::bad) << got.error;
    ASSERT_GT(got.need, have);
    ASSERT_LE(got.need, bytes.size());
    if (got.state == GgufRead::State::keys_only) {
      keys_only = true;
      EXPECT_EQ(facts_of(got.head, 777).block_count, 4u);
      EXPECT_EQ(facts_of(got.head, 777).weights, 777u);
    }
    have = got.need;
  }
  EXPECT_TRUE(keys_only);
}

TEST(Gguf, RefusesWhatItIsNot) {
  EXPECT_EQ(read_gguf("<html>").state, GgufRead::State::bad);
  EXPECT_EQ(read_gguf("GG").state, GgufRead::State::need_more);
  EXPECT_NE(read_gguf(File().head(0, 0, 1).bytes).error.find("version 1"), std::string::npos);
  EXPECT_NE(read_gguf(File().head(0, 0, 0x03000000).bytes).error.find("big-endian"), std::string::npos);
  EXPECT_EQ(read_gguf(File().head(0, UINT64_MAX).bytes).state, GgufRead::State::bad);
  EXPECT_EQ(read_gguf(File().head(UINT64_MAX, 0).bytes).state, GgufRead::State::bad);
  EXPECT_EQ(read_gguf(File().head(0, 1).put<std::uint64_t>(UINT64_MAX).bytes).state, GgufRead::State::bad);
  EXPECT_EQ(read_gguf(File().head(0, 1).array("a", 11, UINT64_MAX / 8).bytes).state, GgufRead::State::bad);
  EXPECT_EQ(read_gguf(File().head(0, 1).array("a", 13, 1).bytes).state, GgufRead::State::bad);
  EXPECT_EQ(read_gguf(File().head(1, 0).tensor("t", {1ull << 40, 1ull << 40}, 0).bytes).state, GgufRead::State::bad);
  File deep;
  deep.head(0, 1).text("a").put<std::uint32_t>(9);
  for (int i = 0; i < 100'000; ++i) deep.put<std::uint32_t>(9).put<std::uint64_t>(1);
  EXPECT_EQ(read_gguf(deep.bytes).state, GgufRead::State::bad);
}

TEST(Gguf, ATensorOfAnUnknownTypeLeavesTheFilesSize) {
  const GgufRead got = read_gguf(File().head(1, 0).tensor("t", {32}, 999).bytes);
  ASSERT_EQ(got.state, GgufRead::State::whole);
  EXPECT_EQ(facts_of(got.head, 5000).weights, 5000u);
}

TEST(Gguf, WindowsOfKnownArchitectures) {
  const auto facts = [](std::string_view architecture, bool list) {
    File f;
    const std::string a(architecture);
    f.head(0, list ? 3 : 2).string("general.architecture", a).u32(a + ".attention.sliding_window", 512);
    if (list) f.array(a + ".attention.sliding_window_pattern", 7, 2).put<std::uint8_t>(1).put<std::uint8_t>(0);
    return facts_of(read_gguf(f.bytes).head);
  };
  EXPECT_EQ(facts("gemma3", false).sliding_window_every, 6u);
  EXPECT_EQ(facts("llama", false).sliding_window, 0u) << "engines keep the whole context";
  EXPECT_EQ(facts("llama", true).layer_slides, (std::vector<bool>{true, false}));
}

TEST(ModelFacts, FromOllamasShow) {
  const auto got = facts_of_show(
      R"({"details":{"family":"llama","quantization_level":"Q4_0"},"model_info":{"general.architecture":"llama",
"general.parameter_count":8030261248,"general.file_type":2,"llama.block_count":32,"llama.context_length":8192,
"llama.embedding_length":4096,"llama.feed_forward_length":14336,"llama.attention.head_count":32,
"llama.attention.head_count_kv":8,"llama.vocab_size":128256,"tokenizer.ggml.tokens":null},"capabilities":["completion"]})",
      4'661'211'808);
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got->weights, 4'661'211'808u);
  EXPECT_EQ(got->quantization, "Q4_0");
  EXPECT_EQ(got->parameters, 8'030'261'248u);
  EXPECT_EQ(kv_cache_bytes(*got, 8192, KvType::f16), GiB);
  EXPECT_FALSE(facts_of_show("nonsense", 1).ok());
  EXPECT_EQ(facts_of_show("{}", 1)->block_count, 0u);
  const auto meta = boost::json::parse(
      R"({"n_vocab":128256,"n_ctx_train":131072,"n_embd":4096,"n_params":8030261312,"size":4912898304})");
  EXPECT_EQ(facts_of_meta(meta.as_object()).weights, 4'912'898'304u);
}

RC_GTEST_PROP(Gguf, AnyBytes, (const std::string& tail)) {
  const std::string whole = model().bytes;
  const auto at = *rc::gen::inRange<std::size_t>(0, whole.size() + 1);
  std::string bytes = whole.substr(0, at) + tail;
  if (!bytes.empty()) bytes[*rc::gen::inRange<std::size_t>(0, bytes.size())] = *rc::gen::arbitrary<char>();
  const GgufRead got = read_gguf(bytes);
  RC_ASSERT((got.state == GgufRead::State::bad) == !got.error.empty());
  if (got.state == GgufRead::State::need_more || got.state == GgufRead::State::keys_only) {
    RC_ASSERT(got.need > bytes.size() && got.need <= kGgufHeadBytes);
  }
  MachineFacts machine;
  machine.ram_total = machine.ram_available = 16 * GiB;
  (void)fit(facts_of(got.head, 1000), 4096, KvType::f16, machine);
}

}  // namespace
}  // namespace grange::ai
