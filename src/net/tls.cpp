#include "net/tls.hpp"

#include <openssl/x509v3.h>

#include <boost/asio/ssl.hpp>
#include <boost/asio/ssl/impl/src.hpp>

#include "net/sockets.hpp"

namespace grange::net {

namespace ssl = asio::ssl;

class TlsContext {
 public:
  TlsContext() : context(ssl::context::tls_client) {}
  ssl::context context;
};

Result<std::shared_ptr<TlsContext>> tls_context(const TlsOptions& options) {
  auto made = std::make_shared<TlsContext>();
  SSL_CTX* const raw = made->context.native_handle();
  SSL_CTX_set_min_proto_version(raw, TLS1_2_VERSION);
  SSL_CTX_set_options(raw, SSL_OP_NO_RENEGOTIATION);
  static constexpr unsigned char kProtocol[] = "\x08http/1.1";
  SSL_CTX_set_alpn_protos(raw, kProtocol, sizeof kProtocol - 1);
  error_code ec;
  if (options.insecure) {
    made->context.set_verify_mode(ssl::verify_none, ec);
    return made;
  }
  made->context.set_verify_mode(ssl::verify_peer, ec);
  made->context.set_default_verify_paths(ec);
  if (!options.ca_file.empty()) {
    made->context.load_verify_file(options.ca_file, ec);
    if (ec)
      return Error{ErrorClass::invalid_argument,
                   fmt::format("Cannot read authorities from {}: {}. It must hold certificates in PEM form.",
                               options.ca_file, ec.message())};
  }
  return made;
}

struct Tls::Impl {
  Impl(tcp::socket& socket, std::shared_ptr<TlsContext> c) : context(std::move(c)), stream(socket, context->context) {}
  std::shared_ptr<TlsContext> context;
  // What the verdict on the certificate needs: it may be asked for as long as the stream lives.
  Url url;
  std::string why;
  ssl::stream<tcp::socket&> stream;
};

namespace {

std::string date(const ASN1_TIME* time) {
  const std::unique_ptr<BIO, int (*)(BIO*)> out(BIO_new(BIO_s_mem()), BIO_free);
  char text[64] = {};
  if (!out || ASN1_TIME_print(out.get(), time) != 1) return "a date that cannot be read";
  const int n = BIO_read(out.get(), text, sizeof text - 1);
  return n > 0 ? std::string(text, static_cast<std::size_t>(n)) : std::string();
}

// The first few of the names that a certificate is for.
std::string names(X509* certificate) {
  std::string out;
  auto* const all = static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; all != nullptr && i < std::min(sk_GENERAL_NAME_num(all), 4); ++i) {
    const GENERAL_NAME* const one = sk_GENERAL_NAME_value(all, i);
    if (one->type != GEN_DNS) continue;
    if (!out.empty()) out += ", ";
    for (int k = 0; k < std::min(ASN1_STRING_length(one->d.dNSName), 100); ++k) {
      const unsigned char c = ASN1_STRING_get0_data(one->d.dNSName)[k];
      out += c > ' ' && c < 127 ? static_cast<char>(c) : '?';
    }
  }
  GENERAL_NAMES_free(all);
  return out.empty() ? "other names" : out;
}

// `certificate`: the one that the verdict is of; null: not known.
std::string distrust(const Url& url, int verdict, X509* certificate) {
  const std::string where = host_port(url.host, url.port);
  std::string text;
  switch (verdict) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
      text = fmt::format("The certificate of {} has expired{}. Who runs it must renew it.", where,
                         certificate ? ": it was good until " + date(X509_get0_notAfter(certificate)) : "");
      break;
    case X509_V_ERR_CERT_NOT_YET_VALID:
      text = fmt::format("The certificate of {} is not valid yet{}. Is the clock of this machine right?", where,
                         certificate ? ": it is good from " + date(X509_get0_notBefore(certificate)) : "");
      break;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
      text = fmt::format("The certificate of {} is for {}, not for \"{}\". Check the host in the URL.", where,
                         certificate ? names(certificate) : "other names", url.host);
      break;
    default:
      text = fmt::format(
          "The certificate of {} is not signed by an authority that this machine trusts ({}). If it is yours, name the "
          "file of your own authority in SSL_CERT_FILE.",
          where, X509_verify_cert_error_string(verdict));
  }
  return text;
}

}  // namespace

Tls::Tls(tcp::socket& socket, std::shared_ptr<TlsContext> context)
    : impl_(std::make_unique<Impl>(socket, std::move(context))) {}

Tls::~Tls() = default;

asio::awaitable<Result<Unit>> Tls::shake_hands(Url url) {
  SSL* const tls = impl_->stream.native_handle();
  const std::string where = host_port(url.host, url.port);
  error_code ec;
  asio::ip::make_address(url.host, ec);
  const bool named = static_cast<bool>(ec);
  const bool set =
      named ? SSL_set_tlsext_host_name(tls, url.host.c_str()) == 1 && SSL_set1_host(tls, url.host.c_str()) == 1
            : X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls), url.host.c_str()) == 1;
  if (!set) co_return Error{ErrorClass::invalid_argument, fmt::format("\"{}\" is no name of a host.", url.host)};
  impl_->url = std::move(url);
  impl_->stream.set_verify_callback(
      [impl = impl_.get()](bool good, ssl::verify_context& at) {
        X509_STORE_CTX* const raw = at.native_handle();
        if (!good) impl->why = distrust(impl->url, X509_STORE_CTX_get_error(raw), X509_STORE_CTX_get_current_cert(raw));
        return good;
      },
      ec);
  co_await impl_->stream.async_handshake(ssl::stream_base::client, into(ec));
  if (!ec) co_return Unit{};
  if (!impl_->why.empty()) co_return Error{ErrorClass::unavailable, std::move(impl_->why)};
  if (ec.category() == asio::error::get_ssl_category() &&
      ERR_GET_REASON(static_cast<unsigned long>(ec.value())) == SSL_R_WRONG_VERSION_NUMBER)
    co_return Error{ErrorClass::unavailable,
                    fmt::format("What answers at {} does not speak TLS. Is it http:// rather than https://?", where)};
  co_return Error{ErrorClass::unavailable, fmt::format("No TLS with {}: {}.", where, ec.message())};
}

void Tls::read_some(asio::mutable_buffer into, Handler done) {
  impl_->stream.async_read_some(into, std::move(done));
}

void Tls::write_some(asio::const_buffer from, Handler done) {
  impl_->stream.async_write_some(from, std::move(done));
}

}  // namespace grange::net
