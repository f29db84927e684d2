#include "server/runs/run_columns.hpp"

namespace grange::server {
namespace {

constexpr RunColumn kColumnLabels[] = {
    {"ttft_ms", "TTFT ms"},         {"gen_tokens", "Tokens"},         {"gen_tokens_per_s", "Tokens/s"},
    {"total_ms", "Total ms"},       {"primes_found", "Primes"},       {"primes_per_s", "Primes/s"},
    {"gflops", "GFLOP/s"},          {"gb_per_s_copy", "Copy GB/s"},   {"gb_per_s_scale", "Scale GB/s"},
    {"gb_per_s_add", "Add GB/s"},   {"gb_per_s_triad", "Triad GB/s"}, {"mb_per_s_write", "Write MB/s"},
    {"mb_per_s_read", "Read MB/s"}, {"wall_seconds", "Seconds"},      {"seconds_per_image", "Seconds/image"}};

std::vector<RunColumn> columns(std::initializer_list<std::string_view> metrics) {
  std::vector<RunColumn> out;
  for (const std::string_view one : metrics) out.push_back({one, label_of(one)});
  return out;
}

}  // namespace

std::string_view label_of(std::string_view metric) {
  for (const RunColumn& one : kColumnLabels) {
    if (one.metric == metric) return one.label;
  }
  return metric;
}

std::vector<RunColumn> run_columns(std::string_view kind, std::string_view op) {
  if (kind == "image") return columns({"wall_seconds", "seconds_per_image"});
  if (kind != "compute") return columns({"ttft_ms", "gen_tokens", "gen_tokens_per_s", "total_ms"});
  if (op == "gemm") return columns({"gflops", "wall_seconds"});
  if (op == "memory")
    return columns({"gb_per_s_copy", "gb_per_s_scale", "gb_per_s_add", "gb_per_s_triad", "wall_seconds"});
  if (op == "disk") return columns({"mb_per_s_write", "mb_per_s_read", "wall_seconds"});
  return columns({"primes_found", "wall_seconds", "primes_per_s"});
}

std::vector<RankedBy> ranked_by(std::string_view kind, std::string_view op) {
  if (kind == "image") return {{"seconds_per_image", false}};
  if (kind != "compute") return {{"gen_tokens_per_s", true}, {"ttft_ms", false}, {"total_ms", false}};
  if (op == "gemm") return {{"gflops", true}};
  if (op == "memory") return {{"gb_per_s_triad", true}, {"gb_per_s_copy", true}};
  if (op == "disk") return {{"mb_per_s_write", true}, {"mb_per_s_read", true}};
  return {{"wall_seconds", false}};
}

}  // namespace grange::server
