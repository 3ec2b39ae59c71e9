// Command coredns is CoreDNS with the plugins that a cluster without a route out can use: the names of its services,
// and errors. The forty others would cost a minute of compiling.
package main

import (
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
)

func main() {
	coremain.Run()
}
