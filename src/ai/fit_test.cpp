#include "ai/fit.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace grange::ai {
namespace {

ModelFacts llama8b() {
  ModelFacts m;
  m.weights = 4'912'898'304;
  m.block_count = 32;
  m.context_length = 131'072;
  m.embedding_length = 4096;
  m.feed_forward_length = 14'336;
  m.head_count = 32;
  m.head_count_kv = 8;
  m.vocabulary = 128'256;
  return m;
}

MachineFacts one_gpu(Bytes free, Bytes ram = 64 * GiB) {
  MachineFacts m;
  m.gpus = {{"GPU", free, free}};
  m.ram_total = m.ram_available = ram;
  return m;
}

double gib(Bytes bytes) {
  return static_cast<double>(bytes) / static_cast<double>(GiB);
}

// Reference: 131,072 bytes a token, so 1 GiB at 8,192 and 16 GiB at 131,072; q8_0 is 34 bytes of 32 values, q4_0 18.
TEST(Fit, CacheOfLlama8bIsAsTheReferenceSays) {
  const ModelFacts m = llama8b();
  EXPECT_EQ(kv_cache_bytes(m, 8192, KvType::f16), GiB);
  EXPECT_EQ(kv_cache_bytes(m, 131'072, KvType::f16), 16 * GiB);
  EXPECT_EQ(kv_cache_bytes(m, 8192, KvType::q8_0), GiB * 34 / 64);
  EXPECT_EQ(kv_cache_bytes(m, 8192, KvType::q4_0), GiB * 18 / 64);
  EXPECT_EQ(kv_cache_bytes(m, 8192, KvType::f16, 4), 4 * GiB);
  EXPECT_EQ(kv_cache_bytes(m, 1, KvType::f16), 256u * 131'072u) << "in steps of 256 tokens";
}

// Reference: without flash attention, 32 heads at 8,192 tokens take 512 MiB.
TEST(Fit, AttentionWithoutFlashTakesMemoryWithTheContext) {
  EXPECT_EQ(compute_bytes(llama8b(), 8192, false), 512 * MiB);
  EXPECT_EQ(compute_bytes(llama8b(), 8192, true), 14'336u * 512 * 4);
}

// Reference: DeepSeek-R1-Distill-Qwen-7B Q4_K_M (4.36 GiB) at 131,072 tokens without flash attention needs 18.89 GiB of
// a discrete GPU, and 7.30 GiB beside its weights in unified memory; that estimator claims to be right to 100 MiB.
TEST(Fit, MeetsTheReferenceValuesOfQwen7b) {
  ModelFacts m;
  m.weights = static_cast<Bytes>(4.36 * static_cast<double>(GiB));
  m.block_count = 28;
  m.context_length = 131'072;
  m.embedding_length = 3584;
  m.feed_forward_length = 18'944;
  m.head_count = 28;
  m.head_count_kv = 4;
  m.vocabulary = 152'064;
  FitOptions options;
  options.flash_attention = false;
  const Fit got = fit(m, 131'072, KvType::f16, one_gpu(80 * GiB), options);
  EXPECT_NEAR(gib(got.need), 18.89, 0.1);
  EXPECT_NEAR(gib(got.kv + output_bytes(m)), 7.30, 0.1);
  EXPECT_EQ(got.verdict, Verdict::good);
}

TEST(Fit, GoodLeavesAFifthAndAGibibyte) {
  const ModelFacts m = llama8b();
  const Bytes need = fit(m, 8192, KvType::f16, one_gpu(80 * GiB)).need;
  EXPECT_EQ(fit(m, 8192, KvType::f16, one_gpu(need * 5 / 4 + 8)).verdict, Verdict::good);
  EXPECT_EQ(fit(m, 8192, KvType::f16, one_gpu(need * 5 / 4 - 8)).verdict, Verdict::risk);
  EXPECT_EQ(fit(m, 8192, KvType::f16, one_gpu(need + 457 * MiB)).verdict, Verdict::risk);
  EXPECT_EQ(fit(m, 8192, KvType::f16, one_gpu(need + 457 * MiB)).gpu_layers, 33u);
  EXPECT_LT(fit(m, 8192, KvType::f16, one_gpu(need + 456 * MiB)).gpu_layers, 33u);
  // Of a small model the gibibyte is what counts.
  ModelFacts small = llama8b();
  small.weights = 100 * MiB;
  small.block_count = 2;
  const Bytes little = fit(small, 4096, KvType::f16, one_gpu(80 * GiB)).need;
  EXPECT_EQ(fit(small, 4096, KvType::f16, one_gpu(little + GiB)).verdict, Verdict::good);
  EXPECT_EQ(fit(small, 4096, KvType::f16, one_gpu(little + GiB - 1)).verdict, Verdict::risk);
}

TEST(Fit, LayersThatDoNotFitGoToRam) {
  const Fit part = fit(llama8b(), 8192, KvType::f16, one_gpu(4 * GiB, 16 * GiB));
  EXPECT_EQ(part.verdict, Verdict::risk);
  EXPECT_GT(part.gpu_layers, 5u);
  EXPECT_LT(part.gpu_layers, 30u);
  EXPECT_FALSE(part.on_cpu);
  EXPECT_NE(part.reason.find("of 33 layers"), std::string::npos) << part.reason;
  const Fit fails = fit(llama8b(), 8192, KvType::f16, one_gpu(4 * GiB, 2 * GiB));
  EXPECT_EQ(fails.verdict, Verdict::fail);
  EXPECT_EQ(fails.good_context, 0u);
  const Fit none = fit(llama8b(), 8192, KvType::f16, one_gpu(GiB / 2, 32 * GiB));
  EXPECT_EQ(none.verdict, Verdict::risk);
  EXPECT_TRUE(none.on_cpu);
}

TEST(Fit, AFailSaysTheContextThatWouldDo) {
  const Fit got = fit(llama8b(), 131'072, KvType::f16, one_gpu(8 * GiB, 4 * GiB));
  EXPECT_EQ(got.verdict, Verdict::fail);
  EXPECT_GT(got.max_context, 4096u);
  EXPECT_NE(got.reason.find(std::to_string(got.max_context)), std::string::npos);
  EXPECT_NE(fit(llama8b(), got.max_context, KvType::f16, one_gpu(8 * GiB, 4 * GiB)).verdict, Verdict::fail);
  EXPECT_EQ(fit(llama8b(), got.max_context + 256, KvType::f16, one_gpu(8 * GiB, 4 * GiB)).verdict, Verdict::fail);
}

TEST(Fit, AContextThatNobodyNamedIsCutBeforeLayersGoAside) {
  // 24 GiB: Ollama takes 32,768 tokens, 4 GiB of cache; with 8 GiB free only less fits.
  MachineFacts machine = one_gpu(24 * GiB, 64 * GiB);
  EXPECT_EQ(default_context(llama8b(), machine), 32'768u);
  EXPECT_EQ(fit(llama8b(), 0, KvType::f16, machine).verdict, Verdict::good);
  machine.gpus[0].free = 8 * GiB;
  const Fit cut = fit(llama8b(), 0, KvType::f16, machine);
  EXPECT_EQ(cut.verdict, Verdict::risk);
  EXPECT_EQ(cut.gpu_layers, cut.layers);
  EXPECT_LT(cut.context, 32'768u);
  EXPECT_GE(cut.context, 4096u);
  EXPECT_NE(cut.reason.find("Fits only with a context of"), std::string::npos) << cut.reason;
  EXPECT_EQ(default_context(llama8b(), one_gpu(8 * GiB)), 4096u);
  EXPECT_EQ(default_context(llama8b(), one_gpu(48 * GiB)), 131'072u) << "no more than it was trained for";
}

TEST(Fit, BeyondWhatItWasTrainedForIsARisk) {
  const Fit got = fit(llama8b(), 200'000, KvType::f16, one_gpu(80 * GiB));
  EXPECT_EQ(got.verdict, Verdict::risk);
  EXPECT_EQ(got.context, 131'072u);
}

TEST(Fit, SpreadsOverGpusWhenOneIsNotEnough) {
  MachineFacts two;
  two.gpus = {{"a", 8 * GiB, 5 * GiB}, {"b", 8 * GiB, 7 * GiB}};
  two.ram_total = two.ram_available = 8 * GiB;
  const Fit got = fit(llama8b(), 8192, KvType::f16, two);
  EXPECT_EQ(got.verdict, Verdict::good) << got.reason;
  EXPECT_EQ(got.gpus_used, 2u);
  EXPECT_EQ(got.gpu_layers, 33u);
  two.gpus[1].total = two.gpus[1].free = 0;  // a device that says nothing is not used
  EXPECT_EQ(fit(llama8b(), 8192, KvType::f16, two).verdict, Verdict::risk);
  two.gpus = {{"a", 24 * GiB, 24 * GiB}, {"b", 24 * GiB, 24 * GiB}};
  EXPECT_EQ(fit(llama8b(), 8192, KvType::f16, two).gpus_used, 1u) << "one is better where it suffices";
}

TEST(Fit, CpuAlone) {
  MachineFacts machine;
  machine.ram_total = 16 * GiB;
  machine.ram_available = 12 * GiB;
  const Fit good = fit(llama8b(), 4096, KvType::f16, machine);
  EXPECT_EQ(good.verdict, Verdict::good);
  EXPECT_TRUE(good.on_cpu);
  EXPECT_EQ(good.gpu_layers, 0u);
  machine.ram_available = 6 * GiB;
  EXPECT_EQ(fit(llama8b(), 4096, KvType::f16, machine).verdict, Verdict::risk);
  machine.ram_available = 4 * GiB;
  EXPECT_EQ(fit(llama8b(), 4096, KvType::f16, machine).verdict, Verdict::fail);
}

TEST(Fit, UnifiedMemoryIsOnePool) {
  MachineFacts machine;
  machine.unified = true;
  machine.gpus = {{"GB10", 0, 0}};
  machine.ram_total = 128 * GiB;
  machine.ram_available = 9 * GiB;
  const Fit good = fit(llama8b(), 8192, KvType::f16, machine);
  EXPECT_EQ(good.verdict, Verdict::good);
  EXPECT_EQ(good.free, 9 * GiB) << "not RAM and VRAM both";
  machine.ram_available = 6 * GiB;
  EXPECT_EQ(fit(llama8b(), 8192, KvType::f16, machine).verdict, Verdict::fail);
  machine.ram_available = 100 * GiB;
  machine.gpus = {{"Apple", 7 * GiB, 7 * GiB}};  // what the system lets the GPU have
  EXPECT_EQ(fit(llama8b(), 8192, KvType::f16, machine).free, 7 * GiB);
}

TEST(Fit, UnknownWhereAFigureIsMissing) {
  ModelFacts m = llama8b();
  EXPECT_EQ(fit(m, 4096, KvType::f16, MachineFacts{}).verdict, Verdict::unknown);
  m.weights = 0;
  EXPECT_EQ(fit(m, 4096, KvType::f16, one_gpu(80 * GiB)).verdict, Verdict::unknown);
  m = llama8b();
  m.block_count = 0;
  const Fit got = fit(m, 4096, KvType::f16, one_gpu(80 * GiB));
  EXPECT_EQ(got.verdict, Verdict::unknown);
  EXPECT_FALSE(got.reason.empty());
}

TEST(Fit, SlidingWindowsHybridsAndCompressedCaches) {
  ModelFacts m = llama8b();
  m.sliding_window = 1024;
  m.sliding_window_every = 4;  // 8 full layers, 24 that slide
  const Bytes full = kv_cache_bytes(llama8b(), 32'768, KvType::f16);
  EXPECT_EQ(kv_cache_bytes(m, 32'768, KvType::f16), full / 4 + full * 3 / 4 * 3072 / 32'768);
  EXPECT_EQ(kv_cache_bytes(m, 2048, KvType::f16), kv_cache_bytes(llama8b(), 2048, KvType::f16));
  ModelFacts hybrid = llama8b();
  hybrid.layer_head_count_kv.assign(32, 0);
  hybrid.layer_head_count_kv[3] = 8;
  hybrid.state_bytes_per_block = 1000;
  EXPECT_EQ(kv_cache_bytes(hybrid, 8192, KvType::f16), GiB / 32 + 31'000);
  ModelFacts mla = llama8b();
  mla.head_count_kv = 1;
  mla.key_length = 576;
  mla.value_length = 512;
  mla.key_length_mla = 192;
  mla.value_length_mla = 128;
  EXPECT_EQ(kv_cache_bytes(mla, 4096, KvType::f16), 4096u * 32 * (576 + 512) * 2);
}

TEST(Fit, JsonHasTheNumbers) {
  const auto json = to_json(fit(llama8b(), 8192, KvType::f16, one_gpu(24 * GiB)));
  EXPECT_EQ(json.at("verdict").as_string(), "GOOD");
  EXPECT_EQ(json.at("kv").as_uint64(), GiB);
  EXPECT_EQ(json.at("need").as_uint64(),
            json.at("weights").as_uint64() + json.at("kv").as_uint64() + json.at("overhead").as_uint64());
}

// More context never fits better, and the contexts that a fit names are what they say.
RC_GTEST_PROP(Fit, ContextsAreTheLargest, ()) {
  ModelFacts m = llama8b();
  m.weights = *rc::gen::inRange<Bytes>(1 * MiB, 40 * GiB);
  m.context_length = *rc::gen::element<std::uint32_t>(0, 100, 2048, 40'000, 131'072);
  MachineFacts machine;
  const int gpus = *rc::gen::inRange(0, 4);
  for (int i = 0; i < gpus; ++i) {
    const Bytes total = *rc::gen::inRange<Bytes>(0, 48 * GiB);
    machine.gpus.push_back({"g", total, *rc::gen::inRange<Bytes>(0, total + 1)});
  }
  machine.ram_total = 64 * GiB;
  machine.ram_available = *rc::gen::inRange<Bytes>(0, 64 * GiB);
  machine.unified = *rc::gen::inRange(0, 4) == 0;
  const auto context = *rc::gen::inRange<std::uint32_t>(1, 200'000);
  const Fit got = fit(m, context, KvType::f16, machine);
  RC_ASSERT(got.verdict != Verdict::unknown && !got.reason.empty());
  RC_ASSERT(got.good_context <= got.max_context);
  const std::uint32_t trained = m.context_length == 0 ? 131'072 : m.context_length;
  if (got.good_context > 0) RC_ASSERT(fit(m, got.good_context, KvType::f16, machine).verdict == Verdict::good);
  if (got.good_context + 256 <= trained) {
    RC_ASSERT(fit(m, got.good_context + 256, KvType::f16, machine).verdict != Verdict::good);
  }
  if (got.max_context + 256 <= trained) {
    RC_ASSERT(fit(m, got.max_context + 256, KvType::f16, machine).verdict == Verdict::fail);
  }
}

}  // namespace
}  // namespace grange::ai
