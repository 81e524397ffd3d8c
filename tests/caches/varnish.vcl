vcl 4.1;
import std;
# Varnish obeys CDN-Cache-Control (RFC 9213) with the lines of vcl_backend_response below; without them it goes by Cache-Control, which says
# the same of a rendition.
backend origin { .host = "127.0.0.1"; .port = "ORIGIN_PORT"; }
acl operators { "127.0.0.1"; }

sub vcl_recv {
  if (req.method == "PURGE" || req.method == "BAN") {
    if (client.ip !~ operators) { return (synth(405)); }
    if (req.method == "PURGE") { return (purge); }
    ban("obj.http.Cache-Tag ~ (^|,)" + req.http.Cache-Tag + "(,|$)");
    return (synth(200, "Banned"));
  }
}

sub vcl_backend_response {
  if (beresp.http.CDN-Cache-Control ~ "(^|,)[ ]*max-age=[0-9]+") {
    set beresp.ttl = std.duration(regsub(beresp.http.CDN-Cache-Control, ".*max-age=([0-9]+).*", "\1s"), 0s);
    set beresp.uncacheable = false;
  }
  # A purge by tag must find what it is to purge, and a browser has no use for staleness on top of a year.
  set beresp.grace = 10s;
}
