package student

type studentOutput struct {
	ETag string `header:"ETag" doc:"Send it as If-Match to write over this version."`
	Body Student
}

type createdOutput struct {
	ETag     string `header:"ETag" doc:"Send it as If-Match to write over this version."`
	Location string `header:"Location"`
	Body     Student
}

type deletedOutput struct {
	ETag string `header:"ETag"`
}
