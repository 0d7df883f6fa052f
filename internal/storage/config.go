package storage

import (
	"errors"
	"fmt"
	"time"
)

// Config says where backups are kept. Keys and passwords are in files, never in it.
type Config struct {
	// Dir is the folder that backups are kept in where Storage is not set.
	Dir string `env:"BACKUP_DIR" envDefault:"backups"`
	// Storage is where backups are kept: a folder's path, or s3://bucket/prefix?… as ParseLocation says.
	Storage Location `env:"BACKUP_STORAGE"`
	// CopyStorage is the second place, to which every verified backup is copied; empty: none.
	CopyStorage Location `env:"BACKUP_COPY_STORAGE"`
	// S3CredentialsFile holds the access key, in the form of ~/.aws/credentials, section default. Empty: the variables
	// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or at Amazon the role of the machine.
	S3CredentialsFile string `env:"BACKUP_S3_CREDENTIALS_FILE"`
	// CopyS3CredentialsFile is that of CopyStorage; empty: the same.
	CopyS3CredentialsFile string `env:"BACKUP_COPY_S3_CREDENTIALS_FILE"`
	// S3Stall ends an attempt at a request to S3 in which not one byte has moved for so long.
	S3Stall time.Duration `env:"BACKUP_S3_STALL" envDefault:"30s"`
	// S3Patience is how long a request to S3 is tried again, while nothing or an error of the server's comes back, before
	// it fails. A dump holds its locks meanwhile.
	S3Patience time.Duration `env:"BACKUP_S3_PATIENCE" envDefault:"20s"`
}

// Check names every fault. It reads the files that the configuration names.
func (c Config) Check() error {
	var faults []error
	if c.S3Stall < time.Second {
		faults = append(faults, errors.New("BACKUP_S3_STALL must be at least 1s"))
	}
	if c.S3Patience < 0 {
		faults = append(faults, errors.New("BACKUP_S3_PATIENCE must not be negative"))
	}
	if _, err := Open(c); err != nil {
		faults = append(faults, fmt.Errorf("BACKUP_STORAGE: %w", err))
	}
	if _, err := OpenCopy(c); err != nil {
		faults = append(faults, fmt.Errorf("BACKUP_COPY_STORAGE: %w", err))
	}
	if c.first().same(c.CopyStorage) {
		faults = append(faults, errors.New("BACKUP_COPY_STORAGE is the same place as the first: a copy must lie elsewhere"))
	}
	return errors.Join(faults...)
}

// first is the place that backups are made in.
func (c Config) first() Location {
	if c.Storage.IsZero() {
		return Location{Folder: c.Dir}
	}
	return c.Storage
}

// Open returns the store that backups are made in. It asks the storage nothing yet.
func Open(c Config) (Store, error) { return c.open(c.first(), c.S3CredentialsFile) }

// OpenCopy returns the store that backups are copied to; nil when there is none.
func OpenCopy(c Config) (Store, error) {
	if c.CopyStorage.IsZero() {
		return nil, nil
	}
	credentials := c.CopyS3CredentialsFile
	if credentials == "" {
		credentials = c.S3CredentialsFile
	}
	return c.open(c.CopyStorage, credentials)
}

func (c Config) open(at Location, credentialsFile string) (Store, error) {
	if at.S3 == nil {
		return NewDirectory(at.Folder)
	}
	return NewS3(*at.S3, S3Options{CredentialsFile: credentialsFile, Stall: c.S3Stall, Patience: c.S3Patience})
}
