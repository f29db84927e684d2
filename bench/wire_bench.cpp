// What a batch of results and a batch of assignments cost to write and read.
#include <benchmark/benchmark.h>

#include "wire/session.hpp"

namespace {

using namespace grange::wire;

pb::Frame results(int n) {
  pb::Frame frame;
  for (int i = 0; i < n; ++i) {
    auto* r = frame.mutable_report()->add_results();
    r->set_task((1ull << 32) | static_cast<unsigned>(i));
    r->set_attempt(1);
    r->set_epoch((7ull << 40) + static_cast<unsigned>(i));
    r->set_ok(true);
    r->set_run_us(3);
  }
  return frame;
}

void encode_results(benchmark::State& state) {
  auto frame = results(static_cast<int>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(encode(frame));
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(encode_results)->Arg(1)->Arg(256);

void decode_results(benchmark::State& state) {
  const auto bytes = encode(results(static_cast<int>(state.range(0))));
  pb::Frame frame;
  for (auto _ : state) benchmark::DoNotOptimize(decode(bytes, frame).ok());
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(decode_results)->Arg(1)->Arg(256);

void session_round_trip(benchmark::State& state) {
  Session a, b;
  for (auto _ : state) {
    auto frame = results(16);
    pb::Frame heard;
    benchmark::DoNotOptimize(decode(a.number(frame), heard).ok());
    benchmark::DoNotOptimize(b.arrived(heard));
    pb::Frame ack;
    ack.mutable_only_ack();
    benchmark::DoNotOptimize(decode(b.unnumbered(ack), heard).ok());
    benchmark::DoNotOptimize(a.arrived(heard));
  }
  state.SetItemsProcessed(state.iterations() * 16);
}
BENCHMARK(session_round_trip);

}  // namespace

BENCHMARK_MAIN();
