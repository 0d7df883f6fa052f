package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	engine "github.com/school-sms/sms/internal/backup"
)

// newKeyCommand makes key pairs where there is no age-keygen.
func newKeyCommand() *cobra.Command {
	var identity, recipient string
	cmd := &cobra.Command{
		Use: "key", Short: "Make a key pair for the encryption of backups, in files that are not there yet",
		Example: "  sms backup key --identity second.key --recipient second.recipients", Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			secret, public, err := engine.NewKeyPair()
			if err != nil {
				return err
			}
			if err := writeNew(recipient, public); err != nil {
				return err
			}
			if err := writeNew(identity, secret); err != nil {
				return errors.Join(err, os.Remove(recipient))
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s holds the secret key: without it no backup can be read\n", identity)
			return nil
		},
	}
	cmd.Flags().StringVar(&identity, "identity", "backup.key", "file for the secret key")
	cmd.Flags().StringVar(&recipient, "recipient", "backup.recipients", "file for the public key")
	return cmd
}

// writeNew writes a file that only its owner reads, and replaces none.
func writeNew(path, content string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, content)
	return errors.Join(err, f.Sync(), f.Close())
}
