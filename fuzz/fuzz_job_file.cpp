// Any text as a job file: refused with a sentence, or a job that passes through its own written form.
#include <boost/json/serialize.hpp>

#include "fuzz/input.hpp"
#include "server/api/job_file.hpp"
#include "server/api/validate.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace grange;
  const auto text = fuzz::text(data, size);
  (void)server::read_time_ms(text);
  (void)server::read_duration_ms(text);
  (void)server::read_bytes(text);
  auto file = server::read_job_file(text);
  if (!file.ok()) {
    fuzz::require(!file.error().message.empty());
    return 0;
  }
  if (file->spec.count() > 10'000) return 0;
  const server::BlobFacts all_here{[](const std::string&) { return true; }};
  if (!server::validate_job(file->spec, file->id, file->pages, all_here).ok()) return 0;
  (void)server::make_header(file->spec);
  (void)server::job_digest(file->spec, file->pages);
  const auto written = boost::json::serialize(server::write_job_file(file->spec, nullptr));
  fuzz::require(server::read_job_file(written).ok());
  return 0;
}
