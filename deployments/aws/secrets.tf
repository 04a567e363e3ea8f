# Secrets Manager generates the passwords and gives them to whoever needs them. Terraform passes
# them on without writing them to its plan or its state.

locals {
  roles = toset(["owner", "authenticator"])
}

ephemeral "aws_secretsmanager_random_password" "role" {
  for_each            = local.roles
  password_length     = 32
  exclude_punctuation = true # The password becomes part of a URL.
}

resource "aws_secretsmanager_secret" "role" {
  for_each    = local.roles
  name_prefix = "${var.name}-database-${each.key}-"
  description = "The password of the database role ${each.key}"
}

resource "aws_secretsmanager_secret_version" "role" {
  for_each                 = local.roles
  secret_id                = aws_secretsmanager_secret.role[each.key].id
  secret_string_wo         = ephemeral.aws_secretsmanager_random_password.role[each.key].random_password
  secret_string_wo_version = var.password_version
}

# Read back, so that an apply that is repeated after it stopped halfway uses the stored password.
ephemeral "aws_secretsmanager_secret_version" "owner" {
  secret_id  = aws_secretsmanager_secret_version.role["owner"].secret_id
  version_id = aws_secretsmanager_secret_version.role["owner"].version_id
}
