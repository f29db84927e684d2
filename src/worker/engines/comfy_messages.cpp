#include "worker/engines/comfy_messages.hpp"

#include <algorithm>
#include <boost/json/serialize.hpp>

#include "ai/json.hpp"

namespace grange::worker {

namespace {

namespace json = boost::json;
using ai::array_at;
using ai::number_at;
using ai::object_at;
using ai::text_at;

constexpr std::size_t kNodes = 10'000;       // of one message
constexpr std::size_t kPromptFiles = 1'000;  // of one prompt

std::string text_or_none(const json::object& from, std::string_view key) {
  return std::string(text_at(from, key).value_or(""));
}

std::vector<std::string> texts_of(const json::object& from, std::string_view key) {
  std::vector<std::string> out;
  const json::array* all = array_at(from, key);
  for (std::size_t i = 0; all != nullptr && i < std::min(all->size(), kNodes); ++i) {
    if (const json::string* one = (*all)[i].if_string()) out.emplace_back(*one);
  }
  return out;
}

// Without its inputs and outputs, which may be large.
std::string error_of(const json::object& data) {
  json::object out;
  for (const char* key : {"exception_type", "exception_message", "node_type", "node_id"}) {
    if (const json::value* value = data.if_contains(key)) out[key] = *value;
  }
  return json::serialize(out);
}

std::uint32_t u32_at(std::string_view bytes, std::size_t at) {
  std::uint32_t out = 0;
  for (std::size_t i = 0; i < 4; ++i) out = out << 8 | static_cast<unsigned char>(bytes[at + i]);
  return out;
}

ComfyEvent read_binary(std::string_view message) {
  ComfyEvent out;
  if (message.size() < 8) return out;
  const std::uint32_t kind = u32_at(message, 0), second = u32_at(message, 4);
  if (kind == 1) {
    out.type = ComfyEvent::Type::preview;
    out.mime = second == 2 ? "image/png" : "image/jpeg";
    out.image = message.substr(8);
  } else if (kind == 4 && second <= message.size() - 8) {
    const auto about = ai::parse_json(message.substr(8, second));
    if (!about || !about->is_object()) return out;
    out.type = ComfyEvent::Type::preview;
    out.mime = text_or_none(about->get_object(), "image_type");
    if (out.mime != "image/png" && out.mime != "image/webp") out.mime = "image/jpeg";
    out.node = text_or_none(about->get_object(), "node_id");
    out.prompt_id = text_or_none(about->get_object(), "prompt_id");
    out.image = message.substr(8 + second);
  }
  return out;
}

ComfyEvent::Type type_of(std::string_view word) {
  using Type = ComfyEvent::Type;
  if (word == "status") return Type::status;
  if (word == "execution_start") return Type::started;
  if (word == "execution_cached") return Type::cached;
  if (word == "executing") return Type::executing;
  if (word == "progress" || word == "progress_state") return Type::progress;
  if (word == "executed") return Type::executed;
  if (word == "execution_success") return Type::succeeded;
  if (word == "execution_interrupted") return Type::interrupted;
  if (word == "execution_error") return Type::failed;
  return Type::other;
}

// Of the nodes that run the one that counts the most steps.
void read_progress_state(const json::object& data, ComfyEvent& out) {
  const json::object* nodes = object_at(data, "nodes");
  if (nodes == nullptr) return;
  for (const auto& [id, one] : *nodes) {
    const json::object* node = one.if_object();
    if (node == nullptr || text_at(*node, "state") != "running") continue;
    const double max = number_at(*node, "max").value_or(0);
    if (max <= out.max) continue;
    out.max = max;
    out.value = number_at(*node, "value").value_or(0);
    out.node = std::string(id);
  }
}

}  // namespace

ComfyEvent read_comfy(std::string_view message, bool binary) {
  if (binary) return read_binary(message);
  ComfyEvent out;
  const auto value = ai::parse_json(message);
  if (!value || !value->is_object()) return out;
  const std::string type = text_or_none(value->get_object(), "type");
  out.type = type_of(type);
  const json::object* data = object_at(value->get_object(), "data");
  if (data == nullptr) return out;
  out.prompt_id = text_or_none(*data, "prompt_id");
  out.node = text_or_none(*data, out.type == ComfyEvent::Type::failed ? "node_id" : "node");
  out.nodes = texts_of(*data, "nodes");
  out.value = number_at(*data, "value").value_or(0);
  out.max = number_at(*data, "max").value_or(0);
  if (type == "progress_state") read_progress_state(*data, out);
  if (out.type == ComfyEvent::Type::failed) out.error = error_of(*data);
  return out;
}

std::optional<ComfyHistory> read_history(std::string_view body, const std::string& prompt_id) {
  const auto value = ai::parse_json(body);
  if (!value || !value->is_object()) return std::nullopt;
  const json::object* entry = object_at(value->get_object(), prompt_id);
  if (entry == nullptr) return std::nullopt;
  ComfyHistory out;
  std::optional<double> began, ended;
  const json::object* status = object_at(*entry, "status");
  // Where it gives no status at all, what it put out speaks for itself.
  out.ok = status == nullptr || text_at(*status, "status_str") == "success";
  const json::array* messages = status == nullptr ? nullptr : array_at(*status, "messages");
  for (std::size_t i = 0; messages != nullptr && i < messages->size(); ++i) {
    const json::array* pair = (*messages)[i].if_array();
    if (pair == nullptr || pair->size() < 2 || !(*pair)[0].is_string() || !(*pair)[1].is_object()) continue;
    const std::string_view word = (*pair)[0].get_string();
    const json::object& data = (*pair)[1].get_object();
    const auto when = number_at(data, "timestamp");
    if (word == "execution_start") began = when;
    if (word == "execution_success") ended = when;
    if (word == "execution_cached") out.cached = texts_of(data, "nodes");
    if (word == "execution_interrupted") out.interrupted = true;
    if (word == "execution_error") out.error = error_of(data);
  }
  if (began && ended && *ended >= *began) out.seconds = (*ended - *began) / 1000;
  std::vector<ComfyFile> temporary;
  const json::object* outputs = object_at(*entry, "outputs");
  for (auto at = outputs == nullptr ? nullptr : outputs->begin(); outputs != nullptr && at != outputs->end(); ++at) {
    const json::object* node = at->value().if_object();
    const json::array* images = node == nullptr ? nullptr : array_at(*node, "images");
    for (std::size_t i = 0; images != nullptr && i < images->size(); ++i) {
      const json::object* image = (*images)[i].if_object();
      if (image == nullptr || text_or_none(*image, "filename").empty()) continue;
      ComfyFile file{std::string(at->key()), text_or_none(*image, "filename"), text_or_none(*image, "subfolder"),
                     text_or_none(*image, "type")};
      if (file.type.empty()) file.type = "output";
      auto& where = file.type == "output" ? out.files : temporary;
      if (where.size() < kPromptFiles) where.push_back(std::move(file));
    }
  }
  if (out.files.empty()) out.files = std::move(temporary);
  return out;
}

std::optional<ComfyQueue> read_queue(std::string_view body, const std::string& prompt_id) {
  const auto value = ai::parse_json(body);
  if (!value || !value->is_object()) return std::nullopt;
  const json::array* running = array_at(value->get_object(), "queue_running");
  const json::array* pending = array_at(value->get_object(), "queue_pending");
  if (running == nullptr || pending == nullptr) return std::nullopt;
  // An entry: [number, prompt_id, …]; a lower number comes first.
  struct Entry {
    double number;
    bool ours;
  };
  const auto read = [&](const json::value& one) -> std::optional<Entry> {
    const json::array* entry = one.if_array();
    if (entry == nullptr || entry->size() < 2 || !(*entry)[1].is_string()) return std::nullopt;
    return Entry{ai::number_of((*entry)[0]).value_or(0), (*entry)[1].get_string() == prompt_id};
  };
  for (const json::value& one : *running) {
    if (const auto entry = read(one); entry && entry->ours) return ComfyQueue{ComfyPlace::running, 0};
  }
  for (const json::value& one : *pending) {
    const auto entry = read(one);
    if (!entry || !entry->ours) continue;
    ComfyQueue out{ComfyPlace::pending, running->size()};
    for (const json::value& other : *pending) {
      if (const auto before = read(other); before && before->number < entry->number) ++out.ahead;
    }
    return out;
  }
  return ComfyQueue{};
}

std::optional<std::vector<std::string>> choices_of(std::string_view object_info, const std::string& klass,
                                                   const std::string& input) {
  const auto value = ai::parse_json(object_info);
  if (!value || !value->is_object()) return std::nullopt;
  const json::object* node = object_at(value->get_object(), klass);
  const json::object* inputs = node == nullptr ? nullptr : object_at(*node, "input");
  if (inputs == nullptr) return std::nullopt;
  for (const char* group : {"required", "optional"}) {
    const json::object* of_group = object_at(*inputs, group);
    const json::array* about = of_group == nullptr ? nullptr : array_at(*of_group, input);
    if (about == nullptr || about->empty()) continue;
    // The choices themselves, or ["COMBO", {"options": […]}].
    const json::array* all = about->front().if_array();
    if (all == nullptr && about->size() > 1 && (*about)[1].is_object())
      all = array_at((*about)[1].get_object(), "options");
    if (all == nullptr) return std::nullopt;
    std::vector<std::string> out;
    for (const json::value& one : *all) {
      if (one.is_string()) out.emplace_back(one.get_string());
    }
    return out;
  }
  return std::nullopt;
}

std::optional<PictureSize> size_of_png(std::string_view bytes) {
  constexpr std::string_view kPngMark("\x89PNG\r\n\x1a\n", 8);
  if (bytes.size() < 24 || !bytes.starts_with(kPngMark) || bytes.substr(12, 4) != "IHDR") return std::nullopt;
  return PictureSize{u32_at(bytes, 16), u32_at(bytes, 20)};
}

}  // namespace grange::worker
