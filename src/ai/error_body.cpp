// Error bodies of all services, brought to one form.
#include <algorithm>

#include "ai/classify.hpp"
#include "ai/json.hpp"
#include "base/utf8.hpp"

namespace grange::ai {
namespace {

constexpr std::size_t kErrorBytes = 2000;

// Cut at a character's end; bytes that are no text become question marks.
std::string clean(std::string_view text) {
  while (!text.empty() && static_cast<unsigned char>(text.front()) <= ' ') text.remove_prefix(1);
  while (!text.empty() && static_cast<unsigned char>(text.back()) <= ' ') text.remove_suffix(1);
  std::size_t size = std::min(text.size(), kErrorBytes);
  while (size > 0 && size < text.size() && (static_cast<unsigned char>(text[size]) & 0xC0) == 0x80) --size;
  std::string out(text.substr(0, size));
  if (is_utf8(out)) return out;
  for (char& c : out) {
    if (static_cast<unsigned char>(c) >= 0x80) c = '?';
  }
  return out;
}

std::string clean_text(const json::value& value) {
  if (value.is_string()) return clean(value.get_string());
  if (const auto count = count_of(value)) return std::to_string(*count);
  return {};
}

void put(std::string& into, const json::object& from, std::string_view key) {
  if (!into.empty()) return;
  if (const json::value* value = from.if_contains(key)) into = clean_text(*value);
}

// The first thing that a node refused. Of many nodes the one whose input is a file is the one that matters.
void read_node_errors(const json::object& nodes, ErrorBody& out) {
  for (const auto& [id, node] : nodes) {
    const json::object* object = node.if_object();
    const json::array* errors = object == nullptr ? nullptr : array_at(*object, "errors");
    if (errors == nullptr) continue;
    for (const json::value& entry : *errors) {
      const json::object* error = entry.if_object();
      if (error == nullptr) continue;
      ErrorBody one;
      put(one.type, *error, "type");
      put(one.message, *error, "details");
      put(one.message, *error, "message");
      put(one.node, *object, "class_type");
      if (const json::object* extra = object_at(*error, "extra_info")) {
        put(one.input, *extra, "input_name");
        put(one.value, *extra, "received_value");
      }
      const bool names_a_file = one.type == "value_not_in_list";
      const bool had_one = out.type == "value_not_in_list";
      if (!out.input.empty() && (had_one || !names_a_file)) continue;
      out.type = one.type;
      out.input = one.input;
      out.value = one.value;
      out.node = one.node;
      if (!one.message.empty()) out.message = one.message;
    }
  }
}

void read_inner(const json::object& error, ErrorBody& out) {
  put(out.message, error, "message");
  put(out.type, error, "type");
  put(out.code, error, "code");
  out.prompt_tokens = count_at(error, "n_prompt_tokens");
  out.context = count_at(error, "n_ctx");
  if (const auto details = text_at(error, "details"); details && !details->empty()) {
    const std::string more = clean(*details);
    out.message = out.message.empty() ? more : out.message + ": " + more;
  }
  if (const json::object* extra = object_at(error, "extra_info")) put(out.node, *extra, "class_type");
}

void read_object(const json::object& body, ErrorBody& out, int depth) {
  const json::value* error = body.if_contains("error");
  if (error != nullptr && error->is_object()) {
    read_inner(error->get_object(), out);
  } else if (error != nullptr && error->is_string()) {
    // RunPod puts JSON into this text, as others do that only pass on what another service said.
    const std::string_view text = error->get_string();
    const auto inside = depth < 2 && !text.empty() && text.front() == '{' ? parse_json(text) : std::nullopt;
    if (inside && inside->is_object()) {
      put(out.type, inside->get_object(), "error_type");
      put(out.message, inside->get_object(), "error_message");
      read_object(inside->get_object(), out, depth + 1);
    }
    if (out.message.empty()) out.message = clean(text);
  }
  if (const json::object* nodes = object_at(body, "node_errors")) read_node_errors(*nodes, out);
  // A broken run of ComfyUI: the event itself, or only its data.
  const json::object* data = object_at(body, "data");
  const json::object& run = data != nullptr && data->contains("exception_message") ? *data : body;
  put(out.type, run, "exception_type");
  put(out.message, run, "exception_message");
  if (run.contains("exception_message")) put(out.node, run, "node_type");
  // Replicate's problem; FastAPI's text or list of problems.
  put(out.message, body, "detail");
  if (const json::array* details = array_at(body, "detail"); details != nullptr && !details->empty()) {
    if (const json::object* first = details->front().if_object()) put(out.message, *first, "msg");
  }
  put(out.message, body, "title");
  put(out.message, body, "message");
  put(out.type, body, "type");
  put(out.code, body, "code");
  if (const json::object* output = object_at(body, "output"); output != nullptr && out.message.empty() && depth < 2) {
    read_object(*output, out, depth + 1);
  }
}

}  // namespace

ErrorBody read_error(std::string_view body) {
  ErrorBody out;
  // The old form of an error inside a stream.
  for (const std::string_view field : {"error:", "data:"}) {
    if (body.substr(0, field.size()) != field) continue;
    body.remove_prefix(field.size());
    break;
  }
  if (const auto value = parse_json(body)) {
    if (value->is_object()) {
      const json::object& object = value->get_object();
      read_object(object, out, 0);
      if (out.message.empty() && !object.contains("error")) read_inner(object, out);  // the inside of "error" alone
      if (!out.prompt_tokens) out.prompt_tokens = count_at(object, "n_prompt_tokens");
      if (!out.context) out.context = count_at(object, "n_ctx");
    } else if (value->is_string()) {
      out.message = clean(value->get_string());
    }
  }
  if (out.message.empty()) out.message = clean(body);
  return out;
}

std::string error_text(std::string_view body) {
  return read_error(body).message;
}

}  // namespace grange::ai
