package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"quire/tritonclient"
)

// connectionFlags are the flags of every command that connects to a server: how
// it does.
func connectionFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "tls", EnvVars: []string{"QUIRE_TLS"}, Usage: "connect with TLS; the other --tls flags turn it on too"},
		&cli.StringFlag{Name: "tls-ca", EnvVars: []string{"QUIRE_TLS_CA"}, Usage: "trust the servers that the certificates in `FILE` (PEM) sign", DefaultText: "the system's"},
		&cli.StringFlag{Name: "tls-cert", EnvVars: []string{"QUIRE_TLS_CERT"}, Usage: "show the server the certificate in `FILE` (PEM)", DefaultText: "none"},
		&cli.StringFlag{Name: "tls-key", EnvVars: []string{"QUIRE_TLS_KEY"}, Usage: "the key of that certificate is in `FILE` (PEM)", DefaultText: "none"},
		&cli.StringFlag{Name: "tls-server-name", EnvVars: []string{"QUIRE_TLS_SERVER_NAME"}, Usage: "expect `NAME` in the server's certificate", DefaultText: "the host in --triton"},
		&cli.StringSliceFlag{Name: "triton-header", EnvVars: []string{"QUIRE_TRITON_HEADER"}, Usage: "send the header `KEY=VALUE` with every call, for a restricted protocol or a proxy; may be given several times. Other users of this machine can read command lines: a secret goes into the variable"},
	}
}

// connectionOf is what connectionFlags said.
func connectionOf(c *cli.Context) (tritonclient.Config, error) {
	var cfg tritonclient.Config
	ca, cert, key, name := c.String("tls-ca"), c.String("tls-cert"), c.String("tls-key"), c.String("tls-server-name")
	if c.Bool("tls") || ca+cert+key+name != "" {
		if (cert == "") != (key == "") {
			return cfg, errors.New("--tls-cert and --tls-key go together: one of them is missing")
		}
		servers, err := tritonclient.ReadTLS(ca, "", "", "")
		if err != nil {
			return cfg, fmt.Errorf("--tls-ca: %w", err)
		}
		own, err := tritonclient.ReadTLS("", cert, key, "")
		if err != nil {
			return cfg, fmt.Errorf("--tls-cert and --tls-key: %w", err)
		}
		cfg.TLS = &tritonclient.TLS{CA: servers.CA, Cert: own.Cert, Key: own.Key, ServerName: name}
	}
	for _, header := range c.StringSlice("triton-header") {
		// The value may be a secret: it is in no message.
		key, value, ok := strings.Cut(header, "=")
		if !ok || key == "" {
			return cfg, errors.New("--triton-header: it is KEY=VALUE")
		}
		key = strings.ToLower(strings.TrimSpace(key))
		if _, twice := cfg.Headers[key]; twice {
			return cfg, fmt.Errorf("--triton-header: %s is there twice", key)
		}
		if cfg.Headers == nil {
			cfg.Headers = map[string]string{}
		}
		cfg.Headers[key] = strings.TrimSpace(value)
	}
	return cfg, cfg.Validate()
}

// serverWaitFlag is for commands that run for long.
func serverWaitFlag() cli.Flag {
	return &cli.DurationFlag{Name: "server-wait", EnvVars: []string{"QUIRE_SERVER_WAIT"}, Usage: "wait for a server that is away, or too busy, at most `TIME` at a stretch", Value: 10 * time.Minute}
}
