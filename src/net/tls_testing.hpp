// For tests: an authority, certificates of any kind, and a TLS server before a plain one.
#pragma once

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <list>
#include <mutex>

#include "net/net_testing.hpp"

namespace grange::net::testing {

struct Identity {
  std::shared_ptr<EVP_PKEY> key;
  std::shared_ptr<X509> certificate;
};

struct CertificateWish {
  std::string names = "DNS:localhost,IP:127.0.0.1";  // as in subjectAltName; "": an authority
  long from = -3600, until = 3600;                   // seconds from now
};

// Signed by `issuer`; without one by itself.
inline Identity certify(const CertificateWish& wish, const Identity* issuer = nullptr) {
  static long serial = 1;
  Identity made;
  made.key.reset(EVP_EC_gen("P-256"), EVP_PKEY_free);
  made.certificate.reset(X509_new(), X509_free);
  X509* const x = made.certificate.get();
  X509_set_version(x, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(x), ++serial);
  X509_gmtime_adj(X509_getm_notBefore(x), wish.from);
  X509_gmtime_adj(X509_getm_notAfter(x), wish.until);
  X509_set_pubkey(x, made.key.get());
  const std::string name = wish.names.empty() ? "test authority" : "test server";
  X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509_set_issuer_name(x, X509_get_subject_name(issuer != nullptr ? issuer->certificate.get() : x));
  const auto extend = [&](int kind, const char* value) {
    X509_EXTENSION* const one = X509V3_EXT_conf_nid(nullptr, nullptr, kind, value);
    X509_add_ext(x, one, -1);
    X509_EXTENSION_free(one);
  };
  if (wish.names.empty()) {
    extend(NID_basic_constraints, "critical,CA:TRUE");
  } else {
    extend(NID_subject_alt_name, wish.names.c_str());
  }
  X509_sign(x, issuer != nullptr ? issuer->key.get() : made.key.get(), EVP_sha256());
  return made;
}

inline void write_pem(const Identity& one, const std::string& path) {
  std::FILE* const file = std::fopen(path.c_str(), "w");
  PEM_write_X509(file, one.certificate.get());
  std::fclose(file);
}

// Speaks TLS on a port of its own and hands the bytes on to `backend`, both ways.
class TlsFront {
 public:
  TlsFront(const Identity& who, std::uint16_t backend) : backend_(backend), context_(SSL_CTX_new(TLS_server_method())) {
    SSL_CTX_use_certificate(context_, who.certificate.get());
    SSL_CTX_use_PrivateKey(context_, who.key.get());
    SSL_CTX_set_tlsext_servername_callback(
        context_, +[](SSL* ssl, int*, void* me) {
          const char* const name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
          auto* const self = static_cast<TlsFront*>(me);
          const std::lock_guard lock(self->mutex_);
          if (name != nullptr) self->asked_ = name;
          return SSL_TLSEXT_ERR_OK;
        });
    SSL_CTX_set_tlsext_servername_arg(context_, this);
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&at), size), 0);
    EXPECT_EQ(::listen(listener_, 16), 0);
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&at), &size);
    port_ = ntohs(at.sin_port);
    acceptor_ = std::thread([this] { accept(); });
  }
  ~TlsFront() {
    over_ = true;
    acceptor_.join();
    for (auto& one : serving_) one.join();
    ::close(listener_);
    SSL_CTX_free(context_);
  }
  TlsFront(const TlsFront&) = delete;
  TlsFront& operator=(const TlsFront&) = delete;
  std::uint16_t port() const { return port_; }
  int accepted() const { return accepted_; }
  std::string asked_name() const {
    const std::lock_guard lock(mutex_);
    return asked_;
  }

 private:
  bool readable(int fd, int ms = 20) const {
    pollfd p{fd, POLLIN, 0};
    return ::poll(&p, 1, ms) > 0;
  }
  void accept() {
    while (!over_) {
      if (!readable(listener_)) continue;
      const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) continue;
      ++accepted_;
      serving_.emplace_back([this, fd] { serve(fd); });
    }
  }
  void serve(int fd) {
    timeval patience{5, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    SSL* const ssl = SSL_new(context_);
    SSL_set_fd(ssl, fd);
    if (SSL_accept(ssl) == 1) {
      Raw behind(backend_);
      for (bool go_on = true; go_on && !over_;) {
        go_on = forward(ssl, fd, behind);
      }
      SSL_shutdown(ssl);
    }
    SSL_free(ssl);
    ::close(fd);
  }
  bool forward(SSL* ssl, int fd, Raw& behind) {
    char bytes[16384];
    if (SSL_pending(ssl) > 0 || readable(fd, 1)) {
      const int n = SSL_read(ssl, bytes, sizeof bytes);
      if (n <= 0 || !behind.send(std::string_view(bytes, static_cast<std::size_t>(n)))) return false;
    }
    if (behind.readable(1)) {
      behind.got.clear();
      if (!behind.read_some()) return false;
      if (SSL_write(ssl, behind.got.data(), static_cast<int>(behind.got.size())) <= 0) return false;
    }
    return true;
  }
  std::uint16_t backend_, port_ = 0;
  SSL_CTX* context_;
  int listener_ = -1;
  std::atomic<bool> over_ = false;
  std::atomic<int> accepted_ = 0;
  mutable std::mutex mutex_;
  std::string asked_;
  std::list<std::thread> serving_;
  std::thread acceptor_;
};

}  // namespace grange::net::testing
