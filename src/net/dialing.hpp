// Opens a TCP connection to a host, by all of its addresses in turn.
#pragma once

#include "base/result.hpp"
#include "net/asio.hpp"
#include "net/url.hpp"

namespace grange::net {

// The caller closes `socket` to end it early; the error is then of class cancelled.
asio::awaitable<Result<Unit>> connect(tcp::socket& socket, Url url);

}  // namespace grange::net
