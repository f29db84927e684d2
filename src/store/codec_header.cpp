// What of a job's header has no column of its own, in one blob.
#include <algorithm>

#include "store/codec.hpp"

namespace grange::store {
namespace {

constexpr std::uint64_t kMoreVersion = 1;

// Numbers are on disk: never reuse one.
enum Tag : std::uint64_t {
  alternative = 1,
  rule,
  kind,
  weight,
  max_running,
  nodes,
  not_before,
  deadline,
  after,
  when,
  speculation,
  result_ttl
};
constexpr std::uint64_t each = 1, pass = 2, one_task = 4;

// A number of an enum whose last is `last`.
template <class E>
bool to_enum(std::uint64_t v, E last, E& out) {
  if (v > static_cast<std::uint64_t>(last)) return false;
  out = static_cast<E>(v);
  return true;
}

void pack_rule(const core::RetryRule& r, Packer& p) {
  p.number(rule);
  p.number(static_cast<std::uint64_t>(r.failure));
  p.bytes(r.exception);
  p.number(r.max_attempts);
  p.number(zigzag(r.base.count()));
  p.number(zigzag(r.cap.count()));
}
bool unpack_rule(Unpacker& u, core::RetryRule& r) {
  if (!to_enum(u.number(), core::FailureClass::dependency, r.failure)) return false;
  r.exception = u.bytes();
  r.max_attempts = u.u32();
  r.base = Millis{unzigzag(u.number())};
  r.cap = Millis{unzigzag(u.number())};
  return u.ok();
}

void pack_after(const core::Dependency& d, Packer& p) {
  const bool one = d.index != core::Dependency::kAll;
  p.number(after);
  p.number((d.each ? each : 0) | (d.pass ? pass : 0) | (one ? one_task : 0));
  p.number(d.job.value);
  if (one) p.number(d.index);
}
bool unpack_after(Unpacker& u, core::Dependency& d) {
  const std::uint64_t flags = u.number();
  if (flags > (each | pass | one_task)) return false;
  d.each = (flags & each) != 0;
  d.pass = (flags & pass) != 0;
  d.job = {u.u32()};
  if ((flags & one_task) != 0) d.index = u.u32();
  return u.ok();
}

}  // namespace

std::string pack_more(const core::JobHeader& h) {
  static const core::JobHeader kDefault;
  std::string out;
  Packer p(out);
  p.number(kMoreVersion);
  for (const core::Request& request : h.alternatives) {
    p.number(alternative);
    p.bytes(pack_request(request));
  }
  for (const core::RetryRule& r : h.retry.rules) pack_rule(r, p);
  p.tagged(kind, h.kind);
  if (h.weight_milli != kDefault.weight_milli) {
    p.number(weight);
    p.number(h.weight_milli);
  }
  p.tagged(max_running, h.max_running);
  if (h.nodes != kDefault.nodes) {
    p.number(nodes);
    p.number(h.nodes);
  }
  p.tagged(not_before, zigzag(h.not_before.ms));
  p.tagged(deadline, zigzag(h.deadline.ms));
  for (const core::Dependency& d : h.after) pack_after(d, p);
  p.tagged(when, static_cast<std::uint64_t>(h.when));
  const core::Speculation& s = h.speculation;
  const core::Speculation& none = kDefault.speculation;
  if (s.on || s.factor_milli != none.factor_milli || s.min_done != none.min_done) {
    p.number(speculation);
    p.number(s.on ? 1 : 0);
    p.number(s.factor_milli);
    p.number(s.min_done);
  }
  p.tagged(result_ttl, zigzag(h.result_ttl.count()));
  if (out.size() == 1) out.clear();
  return out;
}

bool unpack_more(std::string_view packed, core::JobHeader& h) {
  if (packed.empty()) return true;
  Unpacker u(packed);
  if (u.number() != kMoreVersion) return false;
  while (!u.done()) {
    switch (u.number()) {
      case alternative:
        if (!unpack_request(u.bytes(), h.alternatives.emplace_back())) return false;
        break;
      case rule:
        if (!unpack_rule(u, h.retry.rules.emplace_back())) return false;
        break;
      case kind:
        h.kind = u.bytes();
        break;
      case weight:
        h.weight_milli = u.u32();
        break;
      case max_running:
        h.max_running = u.u32();
        break;
      case nodes:
        h.nodes = u.u32();
        break;
      case not_before:
        h.not_before = {unzigzag(u.number())};
        break;
      case deadline:
        h.deadline = {unzigzag(u.number())};
        break;
      case after:
        if (!unpack_after(u, h.after.emplace_back())) return false;
        break;
      case when:
        if (!to_enum(u.number(), core::When::any_succeeded, h.when)) return false;
        break;
      case speculation:
        h.speculation.on = u.number() != 0;
        h.speculation.factor_milli = u.u32();
        h.speculation.min_done = u.u32();
        break;
      case result_ttl:
        h.result_ttl = Millis{unzigzag(u.number())};
        break;
      default:
        return false;
    }
  }
  h.nodes = std::max(h.nodes, 1u);  // the core divides by these
  h.weight_milli = std::max(h.weight_milli, 1u);
  return u.ok();
}

std::uint64_t pack_failures(const core::FailureCounts& failures) {
  static_assert(core::kCountedClasses == 8);
  std::uint64_t packed = 0;
  for (std::size_t i = 0; i < failures.size(); ++i) packed |= std::uint64_t{failures[i]} << (8 * i);
  return packed;
}
core::FailureCounts unpack_failures(std::uint64_t packed) {
  core::FailureCounts failures{};
  for (std::size_t i = 0; i < failures.size(); ++i) failures[i] = static_cast<std::uint8_t>(packed >> (8 * i));
  return failures;
}

}  // namespace grange::store
