// What of a job's header has no column of its own, in one blob.
#include <algorithm>

#include "store/codec.hpp"

namespace grange::store {
namespace {

constexpr std::uint64_t kMoreVersion = 1;

// Numbers are on disk: never reuse one.
namespace header_tag {
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
}  // namespace header_tag
constexpr std::uint64_t kEach = 1, kPass = 2, kOneTask = 4;  // flags of one dependency

// A number of an enum whose last is `last`.
template <class E>
bool to_enum(std::uint64_t v, E last, E& out) {
  if (v > static_cast<std::uint64_t>(last)) return false;
  out = static_cast<E>(v);
  return true;
}

void pack_rule(const core::RetryRule& r, Packer& p) {
  p.number(header_tag::rule);
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
  p.number(header_tag::after);
  p.number((d.each ? kEach : 0) | (d.pass ? kPass : 0) | (one ? kOneTask : 0));
  p.number(d.job.value);
  if (one) p.number(d.index);
}
bool unpack_after(Unpacker& u, core::Dependency& d) {
  const std::uint64_t flags = u.number();
  if (flags > (kEach | kPass | kOneTask)) return false;
  d.each = (flags & kEach) != 0;
  d.pass = (flags & kPass) != 0;
  d.job = {u.u32()};
  if ((flags & kOneTask) != 0) d.index = u.u32();
  return u.ok();
}

}  // namespace

std::string pack_more(const core::JobHeader& h) {
  static const core::JobHeader kDefault;
  std::string out;
  Packer p(out);
  p.number(kMoreVersion);
  for (const core::Request& request : h.alternatives) {
    p.number(header_tag::alternative);
    p.bytes(pack_request(request));
  }
  for (const core::RetryRule& r : h.retry.rules) pack_rule(r, p);
  p.tagged(header_tag::kind, h.kind);
  if (h.weight_milli != kDefault.weight_milli) {
    p.number(header_tag::weight);
    p.number(h.weight_milli);
  }
  p.tagged(header_tag::max_running, h.max_running);
  if (h.nodes != kDefault.nodes) {
    p.number(header_tag::nodes);
    p.number(h.nodes);
  }
  p.tagged(header_tag::not_before, zigzag(h.not_before.ms));
  p.tagged(header_tag::deadline, zigzag(h.deadline.ms));
  for (const core::Dependency& d : h.after) pack_after(d, p);
  p.tagged(header_tag::when, static_cast<std::uint64_t>(h.when));
  const core::Speculation& s = h.speculation;
  const core::Speculation& none = kDefault.speculation;
  if (s.on || s.factor_milli != none.factor_milli || s.min_done != none.min_done) {
    p.number(header_tag::speculation);
    p.number(s.on ? 1 : 0);
    p.number(s.factor_milli);
    p.number(s.min_done);
  }
  p.tagged(header_tag::result_ttl, zigzag(h.result_ttl.count()));
  if (out.size() == 1) out.clear();
  return out;
}

bool unpack_more(std::string_view packed, core::JobHeader& h) {
  if (packed.empty()) return true;
  Unpacker u(packed);
  if (u.number() != kMoreVersion) return false;
  while (!u.done()) {
    switch (u.number()) {
      case header_tag::alternative:
        if (!unpack_request(u.bytes(), h.alternatives.emplace_back())) return false;
        break;
      case header_tag::rule:
        if (!unpack_rule(u, h.retry.rules.emplace_back())) return false;
        break;
      case header_tag::kind:
        h.kind = u.bytes();
        break;
      case header_tag::weight:
        h.weight_milli = u.u32();
        break;
      case header_tag::max_running:
        h.max_running = u.u32();
        break;
      case header_tag::nodes:
        h.nodes = u.u32();
        break;
      case header_tag::not_before:
        h.not_before = {unzigzag(u.number())};
        break;
      case header_tag::deadline:
        h.deadline = {unzigzag(u.number())};
        break;
      case header_tag::after:
        if (!unpack_after(u, h.after.emplace_back())) return false;
        break;
      case header_tag::when:
        if (!to_enum(u.number(), core::When::any_succeeded, h.when)) return false;
        break;
      case header_tag::speculation:
        h.speculation.on = u.number() != 0;
        h.speculation.factor_milli = u.u32();
        h.speculation.min_done = u.u32();
        break;
      case header_tag::result_ttl:
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
