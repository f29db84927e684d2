#include "server/tokens/token_book.hpp"

#include <fmt/format.h>
#include <openssl/rand.h>

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "server/text.hpp"

namespace grange::server {
namespace {

constexpr std::string_view kTokenStart = "gr_";
constexpr std::size_t kSecretBytes = 32, kSecretChars = 43;
// Who is called so is somebody else.
constexpr std::string_view kTakenNames[] = {"token", "local", "anonymous", "schedule"};

bool may_stand(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

}  // namespace

std::string new_token() {
  std::string bytes(kSecretBytes, '\0');
  GRANGE_ASSERT(RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(bytes.size())) == 1);
  std::string text = to_base64(bytes);
  while (text.ends_with('=')) text.pop_back();
  std::replace(text.begin(), text.end(), '+', '-');
  std::replace(text.begin(), text.end(), '/', '_');
  return std::string(kTokenStart) + text;
}

bool looks_like_token(std::string_view text) {
  if (!text.starts_with(kTokenStart)) return false;
  text.remove_prefix(kTokenStart.size());
  return text.size() == kSecretChars && std::all_of(text.begin(), text.end(), may_stand);
}

void TokenBook::load(const std::vector<store::TokenRow>& rows) {
  for (const store::TokenRow& row : rows) add(row);
}

TokenBook::Found TokenBook::find(const std::string& sha256, WallMs now) {
  const auto name = by_hash_.find(sha256);
  if (name == by_hash_.end()) return {};
  const auto it = tokens_.find(name->second);
  if (it == tokens_.end() || it->second.revoked || it->second.role == Role::none) return {};
  const Token& token = it->second;
  if (over(token, now)) return {Is::expired, token.row.name, Role::none, token.row.expires};
  used(token.row.name, now);
  return {Is::good, token.row.name, token.role, token.row.expires};
}

Result<> TokenBook::may_add(const std::string& name) const {
  const bool good = !name.empty() && name.size() <= kTokenNameBytes && name != "." && name != ".." &&
                    std::all_of(name.begin(), name.end(), [](char c) { return may_stand(c) || c == '.'; });
  if (!good)
    return Error{ErrorClass::invalid_argument,
                 fmt::format("A token's name has 1 to {} letters, digits, and any of . _ and -", kTokenNameBytes)};
  if (std::find(std::begin(kTakenNames), std::end(kTakenNames), name) != std::end(kTakenNames))
    return Error{ErrorClass::invalid_argument,
                 fmt::format("\"{}\" is what the farm itself calls somebody; take another name.", name)};
  if (tokens_.contains(name) || reserved_.contains(name))
    return Error{ErrorClass::conflict,
                 fmt::format("There is a token \"{}\" already. Take another name, or revoke it first: grange tokens "
                             "revoke {}",
                             name, name)};
  if (tokens_.size() + reserved_.size() >= kTokens)
    return Error{ErrorClass::rate_limited,
                 fmt::format("A farm has {} tokens at most. Revoke some: grange tokens", kTokens)};
  return {};
}

void TokenBook::reserve(const std::string& name) {
  reserved_[name] = true;
}

void TokenBook::add(store::TokenRow row) {
  reserved_.erase(row.name);
  const Role role = read_role(row.role).value_or(Role::none);
  by_hash_[row.sha256] = row.name;
  std::string name = row.name;
  tokens_[std::move(name)] = {.row = std::move(row), .role = role};
}

void TokenBook::revoke(const std::string& name) {
  if (const auto it = tokens_.find(name); it != tokens_.end()) it->second.revoked = true;
}

void TokenBook::forget(const std::string& name) {
  const auto it = tokens_.find(name);
  if (it == tokens_.end()) return;
  by_hash_.erase(it->second.row.sha256);
  tokens_.erase(it);
  used_.erase(name);
}

std::vector<store::TokenRow> TokenBook::list() const {
  std::vector<store::TokenRow> out;
  for (const auto& [name, token] : tokens_) out.push_back(token.row);
  return out;
}

void TokenBook::used(const std::string& name, WallMs now) {
  const auto it = tokens_.find(name);
  if (it == tokens_.end() || it->second.row.last_used.ms >= now.ms) return;
  it->second.row.last_used = now;
  used_[name] = now;
}

std::vector<std::pair<std::string, WallMs>> TokenBook::take_used() {
  std::vector<std::pair<std::string, WallMs>> out(used_.begin(), used_.end());
  used_.clear();
  return out;
}

std::vector<std::string> TokenBook::expired(WallMs now) {
  std::vector<std::string> out;
  for (auto& [name, token] : tokens_) {
    const bool is_over = over(token, now);
    // Anew when the clock went back behind it.
    if (is_over && !std::exchange(token.ended, is_over)) out.push_back(name);
    token.ended = is_over;
  }
  return out;
}

}  // namespace grange::server
