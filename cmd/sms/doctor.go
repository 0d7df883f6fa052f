package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/caarlos0/env/v11"
	"github.com/spf13/cobra"

	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/settings"
	"github.com/school-sms/sms/internal/standalone"
)

// finding is one thing that `sms doctor` has looked at.
type finding struct {
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

func newDoctorCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Check this machine, and show every setting of `sms up` and where its value comes from",
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			options, err := upOptions(g, nil)
			if err != nil {
				return err
			}
			status, running := standalone.Dial(standalone.Layout{Root: g.dataDir}.Socket()).PlatformStatus(cmd.Context())
			report := struct {
				Findings []finding          `json:"findings"`
				Settings []settings.Setting `json:"settings"`
			}{
				Findings: diagnose(options, status, running),
				Settings: append(settings.Describe[standalone.Options](env.ToMap(os.Environ())), servicesSettings(options.Services)...),
			}
			err = g.print(cmd, report, func(t *table) {
				for _, f := range report.Findings {
					t.row(map[bool]string{true: "ok", false: "FAULT"}[f.OK], f.Check, f.Detail)
				}
				t.row("")
				t.row("SETTING", "VALUE", "FROM")
				for _, s := range report.Settings {
					t.row(s.Name, s.Value, s.Source)
				}
			})
			for _, f := range report.Findings {
				if !f.OK {
					err = errors.New("not everything is in order")
				}
			}
			return err
		},
	}
}

func diagnose(options standalone.Options, status standalone.Status, running error) []finding {
	var found []finding
	add := func(check string, err error, detail string) {
		if err != nil {
			detail = err.Error()
		}
		found = append(found, finding{check, err == nil, detail})
	}
	install, err := postgres.FindInstallation(options.PostgresBin)
	add("PostgreSQL", err, fmt.Sprintf("version %d in %s", install.Major, install.Bin))
	account, err := postgres.ClusterAccount()
	add("account of PostgreSQL", err, account.Name)
	add("data directory", writable(options.DataDir), options.DataDir)
	if free, err := (standalone.Layout{Root: existing(options.DataDir)}).FreeDisk(); err != nil || free >= options.MinFreeDisk {
		add("free disk", err, fmt.Sprintf("%d MiB", free))
	} else {
		add("free disk", fmt.Errorf("%d MiB, at least %d are needed", free, options.MinFreeDisk), "")
	}
	keys, err := backupKeys(options)
	add("keys of the backups", err, keys)
	place, err := backupStorage(options)
	add("storage of the backups", err, place)
	issuers, err := issuersInForce(os.Getenv("IDENTITY_OIDC_ISSUERS_FILE"))
	add("tokens", err, issuers)
	switch {
	case running == nil:
		var ill error
		if !status.Healthy {
			ill = errors.New("it runs, but not everything is ready: see `sms status`")
		}
		add("platform", ill, fmt.Sprintf("runs as pid %d, all healthy", status.PID))
	default:
		for _, p := range options.Ports() {
			add("port of "+p.Name, portFree(p.Port), fmt.Sprintf("%d is free", p.Port))
		}
	}
	return found
}

func portFree(port int) error {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return fmt.Errorf("%d is taken by another program", port)
	}
	return l.Close()
}

// writable tries to write where the data directory is, or will be.
func writable(dir string) error {
	f, err := os.CreateTemp(existing(dir), ".sms-doctor-")
	if err != nil {
		return err
	}
	f.Close()
	return os.Remove(f.Name())
}

// existing is dir, or the nearest folder above it that is there.
func existing(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}
