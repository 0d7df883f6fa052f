package main

import (
	"context"
	"fmt"
	"net"
	"time"

	uiserver "github.com/temporalio/ui-server/v2/server"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	uioptions "github.com/temporalio/ui-server/v2/server/server_options"
)

// serveUI runs the web UI, unless it is switched off, for as long as whileServing runs. The UI shows our namespace first,
// hides Temporal's own, asks nobody for news and decodes no payloads; without allowed origins only its own pages can call
// it. Its cookies are not marked secure, as it is served over plain HTTP.
func serveUI(ctx context.Context, namespace string, ui, frontend address, whileServing func() error) error {
	if ui == (address{}) {
		return whileServing()
	}
	host := ui.bind
	if net.ParseIP(host).To4() == nil {
		host = "[" + host + "]" // the UI joins host and port by a colon
	}
	server := uiserver.NewServer(uioptions.WithConfigProvider(&uiconfig.Config{
		Host:                host,
		Port:                ui.port,
		TemporalGRPCAddress: frontend.dial,
		EnableUI:            true,
		DefaultNamespace:    namespace,
		DisableNewsFetch:    true,
		CORS:                uiconfig.CORS{CookieInsecure: true},
		HideLogs:            true,
	}))
	// Start answers every failure but a stop by ending the process itself, with exit code 1.
	go func() { _ = server.Start() }()
	defer server.Stop()
	if err := awaitListener(ctx, ui.dial); err != nil {
		return fmt.Errorf("start the web UI: %w", err)
	}
	return whileServing()
}

// awaitListener returns when something accepts connections at the address.
func awaitListener(ctx context.Context, dial string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "tcp", dial)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}
