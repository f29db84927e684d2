// Any text as a message of the JSON dialect.
#include "fuzz/input.hpp"
#include "wire/json_dialect.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace grange;
  const auto message = wire::decode_json(fuzz::text(data, size));
  if (!message.ok()) {
    // The answer to it is JSON again, whatever came.
    fuzz::require(wire::parse_json(wire::json_error(message.error(), std::string(fuzz::text(data, size)))).ok());
    return 0;
  }
  (void)wire::read_submit(*message);
  if (const auto end = wire::read_task_end(*message); end.ok() && end->ok) {
    fuzz::require(wire::parse_json(end->result).ok());
  }
  (void)wire::read_progress(*message);
  fuzz::require(wire::parse_json(wire::quoted(message->job_id)).ok());
  fuzz::require(wire::parse_json(wire::json_text(message->data)).ok());
  return 0;
}
