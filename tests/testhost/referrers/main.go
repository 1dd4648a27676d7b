// A registry with the referrers API of the OCI distribution specification 1.1, in memory: Debian's has none.
//
// It is go-containerregistry's own, and says beside it what the specification asks of a registry that has the API:
// the answer to a manifest with a subject names that subject.
package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"

	"github.com/google/go-containerregistry/pkg/registry"
)

// The longest manifest that is looked into, in bytes.
const maxManifest = 4 << 20

func main() {
	inner := registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0)))
	log.Fatal(http.ListenAndServe(os.Args[1], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			nameSubject(w, r)
		}
		inner.ServeHTTP(w, r)
	})))
}

// "Pushing Manifests with Subject" in the specification.
func nameSubject(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxManifest))
	if err != nil {
		return
	}
	r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), r.Body))
	var manifest struct {
		Subject *struct {
			Digest string `json:"digest"`
		} `json:"subject"`
	}
	if json.Unmarshal(body, &manifest) == nil && manifest.Subject != nil {
		w.Header().Set("OCI-Subject", manifest.Subject.Digest)
	}
}
