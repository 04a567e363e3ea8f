variable "name" {
  description = "A name for everything that is created."
  type        = string
  default     = "widgets"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,20}$", var.name))
    error_message = "The name must be 1 to 21 lower-case letters, digits and hyphens, a letter first."
  }
}

variable "region" {
  description = "The AWS region."
  type        = string
}

variable "vpc_id" {
  description = "The VPC to deploy into."
  type        = string
}

variable "public_subnet_ids" {
  description = "Subnets of the load balancer, in at least two zones."
  type        = list(string)
  validation {
    condition     = length(var.public_subnet_ids) >= 2
    error_message = "A load balancer needs subnets in at least two zones."
  }
}

variable "private_subnet_ids" {
  description = "Subnets of the service and the database, in at least two zones. They must reach ECR, Secrets Manager and CloudWatch Logs, through a NAT gateway or VPC endpoints."
  type        = list(string)
  validation {
    condition     = length(var.private_subnet_ids) >= 2
    error_message = "Aurora needs subnets in at least two zones."
  }
}

variable "certificate_arn" {
  description = "The ACM certificate of the load balancer."
  type        = string
}

variable "client_cidrs" {
  description = "Networks that may reach the load balancer. Unless the service requires tokens, anyone who reaches it may do everything."
  type        = list(string)
}

variable "internal" {
  description = "Whether the load balancer has private addresses only."
  type        = bool
  default     = true
}

variable "image" {
  description = "The image, by digest or by a tag that never moves. See Dockerfile beside this file."
  type        = string
}

variable "psql_image" {
  description = "An image with psql, which sets the role's password."
  type        = string
  default     = "public.ecr.aws/docker/library/postgres:15"
}

variable "architecture" {
  description = "The architecture that the image was built for: X86_64 or ARM64."
  type        = string
  default     = "X86_64"
}

variable "cpu" {
  description = "CPU of one replica, in 1/1024 of a vCPU."
  type        = number
  default     = 1024
}

variable "memory_mib" {
  description = "Memory of one replica, in MiB."
  type        = number
  default     = 2048
}

variable "replicas_min" {
  description = "Minimum number of replicas."
  type        = number
  default     = 2
}

variable "replicas_max" {
  description = "Maximum number of replicas. Each takes nine connections to the database by default."
  type        = number
  default     = 10
}

variable "environment" {
  description = "Any of the service's configuration keys, by its variable."
  type        = map(string)
  default     = {}
}

variable "database_engine_major_version" {
  description = "The major version of Aurora PostgreSQL, 15 or newer. It starts with the newest minor version, and AWS keeps that up to date."
  type        = string
  default     = "16"
}

variable "database_instance_class" {
  description = "The class of the database's instances, or db.serverless."
  type        = string
  default     = "db.r6g.large"
}

variable "database_serverless_capacity" {
  description = "Minimum and maximum Aurora capacity units, if the class is db.serverless."
  type        = object({ min = number, max = number })
  default     = { min = 1, max = 16 }
}

variable "database_instances" {
  description = "The number of instances: one, and each further one is a standby in another zone."
  type        = number
  default     = 2
}

variable "database_storage_type" {
  description = "Empty to pay for I/O, aurora-iopt1 for a fixed price."
  type        = string
  default     = ""
}

variable "backup_retention_days" {
  description = "For how many days back a point in time can be restored."
  type        = number
  default     = 14
}

variable "password_version" {
  description = "Increase it to generate new passwords; then run the migration task and redeploy the service."
  type        = number
  default     = 1
}

variable "migrate_by_terraform" {
  description = "Whether apply runs the migration before it deploys the service. That needs the AWS CLI on the machine that runs Terraform."
  type        = bool
  default     = true
}

variable "alarm_email" {
  description = "The address that gets mail when an alarm fires; AWS first asks it to confirm. Alternatively set alarm_topic_arns."
  type        = string
  default     = ""
}

variable "alarm_topic_arns" {
  description = "SNS topics that are notified of alarms."
  type        = list(string)
  default     = []
  validation {
    condition     = length(var.alarm_topic_arns) > 0 || var.alarm_email != ""
    error_message = "Nobody would be notified of alarms: set alarm_email or alarm_topic_arns."
  }
}
