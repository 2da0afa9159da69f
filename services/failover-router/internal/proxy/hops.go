package proxy

import (
	"net/http"
	"strconv"

	"konsul.dev/pkg/fault"
)

// headerHops says how many proxies of Konsul a request has passed. Via (RFC 9110) would say it too,
// but there are servers that stop compressing when they see it.
const headerHops = "X-Konsul-Hops"

// hops reads how many proxies a request has passed, this one not counted.
func hops(r *http.Request) (int, error) {
	text := r.Header.Get(headerHops)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, fault.Invalid(headerHops, "%q is no number of proxies", text).WithRemedy("leave it out, or pass it on as it came")
	}
	return n, nil
}
