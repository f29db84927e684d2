#include "worker/executor_protocol.hpp"

#include <bit>
#include <cstring>

namespace grange::worker::executor {

namespace {

template <class T>
void put(std::string& out, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) out += static_cast<char>(static_cast<unsigned char>(value >> (8 * i)));
}

std::string framed(char type, std::string_view payload_start, std::string_view rest = {}) {
  std::string out;
  const std::size_t size = 1 + payload_start.size() + rest.size();
  out.reserve(4 + size);
  put(out, static_cast<std::uint32_t>(size));
  out += type;
  out.append(payload_start).append(rest);
  return out;
}

// Takes typed pieces off a payload; remembers whether one was missing.
class Pieces {
 public:
  explicit Pieces(std::string_view bytes) : bytes_(bytes) {}
  template <class T>
  T number() {
    T out{};
    if (bytes_.size() < sizeof(T)) {
      good_ = false;
      return out;
    }
    for (std::size_t i = 0; i < sizeof(T); ++i)
      out |= static_cast<T>(static_cast<T>(static_cast<unsigned char>(bytes_[i])) << (8 * i));
    bytes_.remove_prefix(sizeof(T));
    return out;
  }
  double real() { return std::bit_cast<double>(number<std::uint64_t>()); }
  std::string sized() {
    const auto size = number<std::uint32_t>();
    if (!good_ || size > bytes_.size()) {
      good_ = false;
      return {};
    }
    std::string out(bytes_.substr(0, size));
    bytes_.remove_prefix(size);
    return out;
  }
  std::string rest() {
    std::string out(bytes_);
    bytes_ = {};
    return out;
  }
  bool good() const { return good_; }

 private:
  std::string_view bytes_;
  bool good_ = true;
};

}  // namespace

std::string code(std::string_view sha, std::string_view bytes) {
  return framed(1, sha, bytes);
}

std::string run(const RunMessage& m) {
  std::string head;
  head.reserve(static_cast<std::size_t>(size_of(m)));
  put(head, m.task.packed);
  put(head, m.attempt);
  head += static_cast<char>(m.encoding);
  head += static_cast<char>(m.has_checkpoint ? 1 : 0);
  head += m.sha;
  put(head, static_cast<std::uint32_t>(m.args.size()));
  head += m.args;
  put(head, static_cast<std::uint32_t>(m.checkpoint.size()));
  head += m.checkpoint;
  const std::string_view id = m.job_id.substr(0, UINT16_MAX);
  put(head, static_cast<std::uint16_t>(id.size()));
  head += id;
  put(head, static_cast<std::uint32_t>(m.inputs.size()));
  for (const RunMessage::Input& input : m.inputs) {
    head += static_cast<char>(input.encoding);
    put(head, static_cast<std::uint32_t>(input.bytes.size()));
    head += input.bytes;
  }
  put(head, static_cast<std::uint32_t>(m.env.size()));
  for (const std::string& setting : m.env) {
    put(head, static_cast<std::uint32_t>(setting.size()));
    head += setting;
  }
  return framed(2, head);
}

Bytes size_of(const RunMessage& m) {
  Bytes size = 96 + m.args.size() + m.checkpoint.size() + m.job_id.size();
  for (const RunMessage::Input& input : m.inputs) size += 5 + input.bytes.size();
  for (const std::string& setting : m.env) size += 4 + setting.size();
  return size;
}

std::string leave() {
  return framed(3, {});
}

Result<std::optional<Message>> Reader::next() {
  if (buffer_.size() - at_ < 4) {
    buffer_.erase(0, at_);
    at_ = 0;
    return std::optional<Message>{};
  }
  const auto size = Pieces(std::string_view(buffer_).substr(at_)).number<std::uint32_t>();
  if (size == 0 || size > kMessage)
    return Error{ErrorClass::invalid_argument, "The executor sent a message of " + std::to_string(size) + " bytes."};
  if (buffer_.size() - at_ - 4 < size) {
    if (at_ > 0) {
      buffer_.erase(0, at_);
      at_ = 0;
    }
    return std::optional<Message>{};
  }
  const auto type = static_cast<unsigned char>(buffer_[at_ + 4]);
  Pieces p(std::string_view(buffer_).substr(at_ + 5, size - 1));
  at_ += 4 + std::size_t{size};
  std::optional<Message> out;
  const auto task = [&] { return TaskId{p.number<std::uint64_t>()}; };
  if (type == 0) {
    out = Ready{p.rest()};
  } else if (type == 1) {
    Ended m;
    m.task = task();
    m.attempt = p.number<std::uint32_t>();
    const auto status = p.number<std::uint8_t>();
    m.value = p.sized();
    m.message = p.sized();
    m.traceback = p.sized();
    m.exception = p.sized();
    if (!p.good() || status > 4)
      return Error{ErrorClass::invalid_argument, "The executor sent a result that cannot be read."};
    m.status = static_cast<Status>(status);
    out = std::move(m);
  } else if (type == 2) {
    Progress m;
    m.task = task();
    m.attempt = p.number<std::uint32_t>();
    m.done = p.real();
    m.total = p.real();
    m.text = p.rest();
    out = std::move(m);
  } else if (type == 3) {
    Log m;
    m.task = task();
    m.attempt = p.number<std::uint32_t>();
    m.text = p.rest();
    out = std::move(m);
  } else if (type == 4) {
    Saved m;
    m.task = task();
    m.attempt = p.number<std::uint32_t>();
    m.data = p.rest();
    out = std::move(m);
  } else {
    return Error{ErrorClass::invalid_argument,
                 "The executor sent a message of unknown type " + std::to_string(type) + "."};
  }
  if (!p.good()) return Error{ErrorClass::invalid_argument, "The executor sent a message that ends too early."};
  return out;
}

}  // namespace grange::worker::executor
